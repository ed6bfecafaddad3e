"""The browser of the tests: Debian's Chromium, installed when it is missing and we may."""

from __future__ import annotations

import os
import shutil
import subprocess

from lab.asterisk import LabUnavailable

PACKAGES = ("chromium", "fonts-dejavu-core")
DEADLINE_S = 600


def ensure_chromium() -> str:
    """The program's path. Raises LabUnavailable saying what to do where it cannot be had."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LabUnavailable("there is no chromium here: run `sudo apt-get install chromium`")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
        if done.returncode != 0:
            raise LabUnavailable(f"chromium could not be installed: {done.stderr.strip()[-300:]}")
    return "/usr/bin/chromium"
