"""Compiles the call model into the virtual environment, when that was not done for these sources yet. Run by `make setup` with .venv's Python.

Without a C compiler it says so in a line and the modules run as they are written. What mypyc cannot translate is a fault of the sources: exit status 1.
"""

import contextlib
import io
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from daemon.compiled import MODULES, ROOT, SWITCH, place, source

KEPT = 4  # former builds: a change of branch and back compiles nothing


def main() -> None:
    made = place()
    if os.environ.get(SWITCH) == "0" or made.is_dir():
        return
    if (missing := what_is_missing()) is not None:
        print(f"setup: {missing}, so the call model runs uncompiled, at two fifths of its speed", file=sys.stderr)
        return
    print("setup: compiling the call model", file=sys.stderr, flush=True)
    made.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        if build(Path(scratch)):
            with contextlib.suppress(OSError):  # another setup was faster
                (Path(scratch) / "lib").rename(made)
    forget_old(made.parent)


def what_is_missing() -> str | None:
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "there are no headers of Python (python3-dev)"
    return None


def build(scratch: Path) -> bool:
    """Translates and compiles into scratch/lib; False when the compiler failed."""
    from mypyc.build import mypycify
    from setuptools import setup

    os.chdir(ROOT)
    options = ["--config-file=", f"--cache-dir={scratch / 'types'}"]
    sources = [str(source(module).relative_to(ROOT)) for module in MODULES]
    extensions = mypycify([*sources, *options], opt_level="2", debug_level="0", target_dir=str(scratch / "c"), group_name="vochid_calls")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            setup(
                name="vochid-calls", ext_modules=extensions, script_args=["-q", "build_ext", f"--build-lib={scratch / 'lib'}", f"--build-temp={scratch / 'o'}"]
            )
    except SystemExit as error:
        print(f"setup: the C compiler failed ({error}), so the call model runs uncompiled", file=sys.stderr)
        return False
    return True


def forget_old(directory: Path) -> None:
    for old in sorted((made for made in directory.iterdir() if made.is_dir()), key=lambda made: made.stat().st_mtime, reverse=True)[KEPT + 1 :]:
        shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    main()
