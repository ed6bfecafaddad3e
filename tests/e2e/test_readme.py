"""Every command of README.md and README.ru.md is run, as a stranger would."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.run import short_directory
from tests.e2e.conftest import House

ROOT = Path(__file__).parent.parent.parent
READMES = [ROOT / "README.md", ROOT / "README.ru.md"]


def commands(readme: Path) -> list[str]:
    return [line.strip() for block in re.findall(r"```sh\n(.*?)```", readme.read_text(), re.DOTALL) for line in block.splitlines() if line.strip()]


def document(readme: Path) -> str:
    return re.search(r"```json\n(.*?)```", readme.read_text(), re.DOTALL)[1]  # type: ignore[index]


def without_names(command: str) -> str:
    return re.sub(r'"[^"]*"', '""', command)


def test_both_languages_name_the_same_commands() -> None:
    one, other = ([without_names(command) for command in commands(readme)] for readme in READMES)
    assert one == other
    assert one[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.name)
def test_every_make_target_exists(readme: Path) -> None:
    for command in commands(readme) + re.findall(r"`(make [a-z0-9-]+)`", readme.read_text()):
        if command.startswith("make "):
            assert subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, check=False).returncode == 0, command


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.name)
def test_every_link_leads_somewhere(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
        assert (ROOT / target).exists(), target


@pytest.mark.hasty  # nothing of the example answers
@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.name)
async def test_every_vochid_command_works_on_the_readmes_own_example(readme: Path, house: House, tmp_path: Path) -> None:
    example = document(readme)
    secret = json.loads(example)["integrations"]["retailcrm"]["api_key"]
    (tmp_path / "june.json").write_text(example.replace(secret, "a-key-0123456789").replace('"пароль AMI"', '"ami"'))
    for command in commands(readme):
        words = shlex.split(command)
        if words[0] != "vochid":
            continue
        words = [str(tmp_path / word) if word == "june.json" else word for word in words[1:]]
        if words[:2] == ["calls", "tail"]:
            with pytest.raises(subprocess.TimeoutExpired):
                await asyncio.to_thread(subprocess.run, [str(ROOT / ".venv/bin/vochid"), *words], env=house.daemon.environment, timeout=4, capture_output=True)
            continue
        done = await asyncio.to_thread(house.cli, *words)
        # The example's PBX and CRM do not exist: doctor must say so, everything else must succeed.
        assert done.returncode == (1 if words[0] == "doctor" else 0), (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        if words[0] == "doctor":
            assert "FAIL  0367 pbx main login" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0 and os.environ.get("CI") != "true", reason="the installation needs root: sudo make test")
@pytest.mark.timeout(600)
def test_the_installation_below_another_root_is_complete_and_runs(tmp_path: Path) -> None:
    [command] = {c for readme in READMES for c in commands(readme) if "install.sh" in c}
    words = [word for word in shlex.split(command) if word != "sudo"]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, "DESTDIR": str(tmp_path), "VOCHID_COMPILED": "0"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("etc/systemd/system/vochid.service", "etc/vochid/vochid.toml", "usr/lib/sysusers.d/vochid.conf", "opt/vochid/sql/0001_init.sql"):
        assert (tmp_path / name).is_file(), name
    vochid = tmp_path / "opt/vochid/.venv/bin/vochid"
    assert subprocess.run([vochid, "--help"], capture_output=True, check=False, cwd="/").returncode == 0
    data = short_directory("vochid-inst-")
    listed = subprocess.run(
        [vochid, "enterprise", "list"], capture_output=True, text=True, check=False, cwd="/", env={**os.environ, "VOCHID_DATA_DIR": str(data)}
    )
    shutil.rmtree(data)
    assert listed.returncode == 0, listed.stderr
    unit = (tmp_path / "etc/systemd/system/vochid.service").read_text()
    start = re.search(r"(?m)^ExecStart=(\S+) run$", unit)
    assert start
    assert start[1] == "/opt/vochid/.venv/bin/vochid"
    if shutil.which("systemd-analyze"):
        (tmp_path / "etc/systemd/system/vochid.service").write_text(unit.replace("/opt/vochid", str(tmp_path / "opt/vochid")))
        checked = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / "etc/systemd/system/vochid.service")], capture_output=True, text=True, check=False
        )
        assert "Unknown" not in checked.stderr, checked.stderr
