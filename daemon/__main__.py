"""python -m daemon, the same as `vochid`."""

from daemon.cli import main

main()
