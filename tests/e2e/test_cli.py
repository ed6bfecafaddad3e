"""Every command, as a person types it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.office import free_port
from lab.patient import EVERYTHING, VARIABLE
from lab.run import short_directory
from tests.e2e.conftest import NUMBER, House

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests/golden"


@pytest.fixture
def house(embedded_house: House) -> House:
    """Commands join the server that the daemon runs."""
    return embedded_house


def vochid(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon", *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=180, check=False
    )


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("settings") / "0367.json"
    pbx = {"name": "main", "host": "127.0.0.1", "trunks": ["PJSIP/provider"], "internal_number": "^1\\d\\d$"}
    file.write_text(json.dumps({"number": "0367", "name": "x", "pbxs": [pbx], "lines": [{"number": "+375171112230"}]}))
    return file


def test_replay_gives_json_lines_and_needs_no_database(settings: Path) -> None:
    done = vochid("calls", "replay", str(GOLDEN / "inbound-answered/asterisk-22.ami"), "--settings", str(settings), "--json", VOCHID_DATA_DIR="/nonexistent")
    [call] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (call["result"], call["answered_by"], call["line"]) == ("answered", "150", "+375171112230")
    assert 1 < call["talk_seconds"] < 2
    assert done.stderr == ""


def test_replay_for_people_is_a_table_or_tabs(settings: Path) -> None:
    done = vochid("calls", "replay", str(GOLDEN / "ring-group/asterisk-16.ami"), "--settings", str(settings))
    assert "answered\t150, 151\t151" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("calls", "replay", "/nowhere.ami", "--settings", "SETTINGS"), "/nowhere.ami: No such file"),
        (("calls", "replay", "TRACE", "--settings", "/nowhere.json"), "No such file"),
        (("calls", "replay", "TRACE", "--settings", "TRACE"), "not JSON"),
        (("calls", "replay", "TRACE", "--settings", "SETTINGS", "--pbx", "other"), "no PBX called other"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(arguments: tuple[str, ...], says: str, settings: Path) -> None:
    places = {"SETTINGS": str(settings), "TRACE": str(GOLDEN / "inbound-answered/asterisk-22.ami")}
    done = vochid(*(places.get(argument, argument) for argument in arguments))
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [("nonsense",), ("calls",), ("enterprise", "show"), ("token", "add", "--enterprise", "1"), ("run", "--fast")])
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    assert vochid(*arguments).returncode == 2


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"VOCHID_HTTP": "nonsense"}, "VOCHID_HTTP: must be host:port"),
        ({"VOCHID_EGRESS_ALLOW": "everywhere"}, "VOCHID_EGRESS_ALLOW: everywhere is not an address"),
        ({"VOCHID_LOG_LEVEL": "loud"}, "VOCHID_LOG_LEVEL: must be"),
        ({"VOCHID_SECRET_KEYS": "short"}, "at least 32 characters"),
        ({"VOCHID_SECRET_KEYS_FILE": "/nowhere"}, "cannot be read"),
        ({"VOCHID_DATABASE_URL": "postgresql://nobody:x@127.0.0.1:1/none"}, "vochid:"),
        ({"VOCHID_DATA_DIR": "/tmp/" + "x" * 100}, "VOCHID_DATA_DIR"),
    ],
)
def test_a_bad_process_setting_is_named(environment: dict[str, str], says: str) -> None:
    done = vochid("run", **{"VOCHID_DATA_DIR": str(short_directory("vochid-cli-")), **environment})
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


async def test_tenants_tokens_and_deliveries_beside_a_running_daemon(house: House, tmp_path: Path) -> None:
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(house.document))

    async def cli(*arguments: str, code: int = 0) -> str:
        done = await asyncio.to_thread(house.cli, *arguments)
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout + done.stderr

    assert await cli("enterprise", "apply", str(file)) == f"{NUMBER}: created\n"
    assert await cli("enterprise", "apply", str(file)) == f"{NUMBER}: unchanged\n"
    await house.linked()
    assert f"{NUMBER}\tИюнь\tactive\tmain\tretailcrm" in await cli("enterprise", "list")
    shown = await cli("enterprise", "show", NUMBER)
    assert house.pbx.secret not in shown
    sealed = json.loads(await cli("enterprise", "show", NUMBER, "--sealed"))
    assert sealed["pbxs"][0]["secret"]["sealed"].startswith("v1:")
    file.write_text(json.dumps(sealed))
    assert "unchanged" in await cli("enterprise", "apply", str(file))
    file.write_text('{"number": "0367", "name": "x", "pbxs": [{"name": "a", "host": "h", "colour": "red"}]}')
    assert "pbxs.0.colour: there is no such setting" in await cli("enterprise", "apply", str(file), code=1)
    assert "no enterprise 9999" in await cli("enterprise", "show", "9999", code=1)

    token = (await cli("token", "add", "--enterprise", NUMBER, "--name", "test")).strip()
    assert re.fullmatch(r"vo_[\w-]{40,}", token)
    token_id = (await cli("token", "list", "--enterprise", NUMBER)).split("\t")[0]
    assert "revoked" in await cli("token", "revoke", "--enterprise", NUMBER, token_id)
    assert (await cli("--version")).startswith("vochid 0.")
    assert "0 sealed anew" in await cli("keys", "rotate")
    assert (await cli("keys", "alerts")).startswith("whsec_")

    house.crm.switches.telephony_enabled = False
    tail = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daemon", "calls", "tail", "--enterprise", NUMBER, env={**os.environ, **house.daemon.environment}, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert tail.stdout is not None
    assert tail.stderr is not None
    assert b"waiting for calls" in await asyncio.wait_for(tail.stderr.readline(), 30)
    await house.play("inbound-not-answered", speed=10)
    line = (await asyncio.wait_for(tail.stdout.readline(), 30)).decode()
    assert "+375296254070" in line
    tail.terminate()
    await tail.wait()
    async with asyncio.timeout(60):
        while "\tjournal\t" not in (listed := await cli("deliveries", "list", "--enterprise", NUMBER, "--state", "dead")):
            await asyncio.sleep(0.2)
    journal = next(line.split("\t")[0] for line in listed.splitlines() if "\tjournal\t" in line)
    house.crm.switches.telephony_enabled = True
    assert "waiting" in await cli("deliveries", "retry", "--enterprise", NUMBER, journal)
    await house.journaled(1)
    assert "no delivery 99" in await cli("deliveries", "discard", "--enterprise", NUMBER, "99999", code=1)
    assert await cli("migrate") == "the schema is up to date\n"
    assert "removed" in await cli("enterprise", "remove", NUMBER, "--purge")


async def test_doctor_says_what_works_and_what_does_not(house: House) -> None:
    await house.daemon.put(house.document)
    await house.linked()
    done = await asyncio.to_thread(house.cli, "doctor", "--enterprise", NUMBER, "--asterisk-conf", str(ROOT / "asterisk-conf"))
    text = done.stdout
    for line in ("ok    call model", "ok    keys", "ok    fastagi", "ok    database: PostgreSQL", "ok    schema", f"ok    {NUMBER} pbx main login",
                 f"ok    {NUMBER} retailcrm credentials", "ok    vochid.conf [vochid] read"):  # fmt: skip
        assert line in text, text
    assert f"FAIL  {NUMBER} pbx main events" in text  # a PBX that can only remember never boots
    assert done.returncode == 1
    snippets = await asyncio.to_thread(house.cli, "enterprise", "show", NUMBER, "--asterisk")
    assert "exten => +375171112233,1,Gosub(vochid-record,s,1)" in snippets.stdout
    assert house.pbx.secret not in snippets.stdout
    assert "there is no enterprise 9999" in (await asyncio.to_thread(house.cli, "enterprise", "show", "9999", "--asterisk")).stderr
    [pbx] = house.document["pbxs"]
    await house.daemon.put({**house.document, "pbxs": [{**pbx, "username": "telephony"}]})
    house.crm.api_key = "another-key-another-key"
    done = await asyncio.to_thread(house.cli, "doctor", "--enterprise", NUMBER, "--asterisk-conf", str(ROOT / "asterisk-conf"))
    assert f"FAIL  {NUMBER} retailcrm credentials" in done.stdout
    assert "there is no manager user telephony" in done.stdout  # the files are looked through for the user that the document names


async def test_a_trace_is_recorded_and_masked(house: House, tmp_path: Path) -> None:
    await house.daemon.put(house.document)
    await house.linked()
    for mask in (False, True):
        file = tmp_path / f"trace-{mask}.ami"
        logins = house.pbx.accepted
        recording = await asyncio.create_subprocess_exec(
            *house.daemon.program, "trace", "record", "--enterprise", NUMBER, str(file), *(["--mask"] if mask else []),
            env={**os.environ, **house.daemon.environment}, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell lets what it runs in the background ignore it
        )  # fmt: skip
        await logged_in(house, logins + 1)
        await house.play("cyrillic-name")
        house.pbx.hang_up()  # who comes back after that has heard all of it
        await logged_in(house, logins + 3)
        recording.send_signal(signal.SIGINT)
        _, complaint = await asyncio.wait_for(recording.communicate(), 60)
        assert recording.returncode == 0, complaint.decode()
        data = file.read_bytes()
        assert (b"375296254070" in data) is not mask
        assert ("Восток" in data.decode()) is not mask
        settings = tmp_path / "doc.json"
        settings.write_text(json.dumps({**house.document, "integrations": {}}))
        replayed = vochid("calls", "replay", str(file), "--settings", str(settings), "--json")
        assert json.loads(replayed.stdout)["answered_by"] == "150"
    done = await asyncio.to_thread(house.cli, "trace", "record", "--enterprise", NUMBER, str(tmp_path / "still.ami"), "--seconds", "1")
    assert done.returncode == 0, done.stderr  # ends by itself


async def logged_in(house: House, times: int) -> None:
    """Waits for so many logins since the PBX began."""
    async with asyncio.timeout(60):
        while house.pbx.accepted < times:
            await asyncio.sleep(0.05)


def test_the_demo_plays_recorded_calls_where_there_is_no_root() -> None:
    # On a port of its own, as another demo may be running.
    environment = {**os.environ, "VOCHID_HTTP": f"127.0.0.1:{free_port()}", VARIABLE: ",".join(sorted(EVERYTHING))}
    done = subprocess.run([sys.executable, "-m", "daemon", "demo", "--replay"], env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Recorded calls of a real Asterisk 22" in done.stdout
    assert "FAIL" not in done.stdout
    assert "10 calls, 10 journal entries, 0 missing, 0 doubled." in done.stdout
