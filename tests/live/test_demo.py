"""`make demo` on a real Asterisk: every step is well, and nothing is missing or doubled."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.office import free_port
from lab.patient import EVERYTHING, VARIABLE

pytestmark = [pytest.mark.asterisk, pytest.mark.xdist_group("asterisk"), pytest.mark.timeout(600)]


def test_the_demo_clicks_redirects_and_loses_nothing_while_the_crm_is_stopped(asterisk_root: Path) -> None:
    # On a port of its own, as another demo may be running.
    environment = {**os.environ, "VOCHID_HTTP": f"127.0.0.1:{free_port()}", VARIABLE: ",".join(sorted(EVERYTHING))}
    command = [sys.executable, "-m", "daemon", "demo", "--once"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = re.findall(r"(?m)^(ok|FAIL)  +(.*)$", done.stdout)
    assert {state for state, _ in steps} == {"ok"}
    said = " ".join(what for _, what in steps)
    for what in ("150 is connected with the customer", "smart redirect gives the call to 150", "The CRM is stopped", "The CRM is back"):
        assert what in said
    assert "13 calls, 13 journal entries, 0 missing, 0 doubled." in said
