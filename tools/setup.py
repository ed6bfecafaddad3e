"""Makes .venv with everything in it. Needs python3 >= 3.11 and nothing else: run as `python3 tools/setup.py`.

Standard library only. What it installs is what requirements.lock names, checked by hash.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "installed"


def main() -> None:
    if sys.version_info < (3, 11):
        sys.exit(f"setup: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    wanted = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    make_venv()
    print("setup: installing the packages of requirements.lock", file=sys.stderr, flush=True)
    pip("install", "--use-pep517", "--require-hashes", "-r", str(LOCK))
    pip("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    STAMP.write_text(wanted)
    print("setup: .venv is ready", file=sys.stderr)


def make_venv() -> None:
    if (VENV / "bin/python").exists() and subprocess.run([VENV / "bin/python", "-c", "import pip"], capture_output=True).returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    if subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True).returncode != 0:
        install_venv_package()
    run([sys.executable, "-m", "venv", str(VENV)])


def install_venv_package() -> None:
    """Debian ships python3 without ensurepip; the package python3-venv has it."""
    package = f"python3.{sys.version_info.minor}-venv"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"setup: this python3 cannot make virtual environments. Run `sudo apt-get install {package}` and then make again")
    print(f"setup: installing {package}", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], environment)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], environment)


def pip(*arguments: str) -> None:
    run([str(VENV / "bin/python"), "-m", "pip", "--disable-pip-version-check", "-q", *arguments])


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment)
    if done.returncode != 0:
        sys.exit(f"setup: `{' '.join(command[:4])} …` failed")


if __name__ == "__main__":
    main()
