"""The commands, one file per group; daemon/cli.py puts them together."""
