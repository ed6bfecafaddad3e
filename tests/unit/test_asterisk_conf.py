"""A PBX's files: what ships is good, every fault is found, and snippets are what ships, filled in."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.asterisk.audit import check_asterisk_conf
from daemon.asterisk.conf import read_conf
from daemon.asterisk.filters import lets_through
from daemon.asterisk.snippets import snippets
from daemon.errors import VochidError
from daemon.settings import Listen
from daemon.tenants.document import Enterprise
from lab.asterisk import write_config
from lab.office import Ports, pbx_files

SHIPPED = Path(__file__).parent.parent.parent / "asterisk-conf"
FILTERS = ("vochid-eventfilter.conf", "vochid-eventfilter-22.conf")


def installed(directory: Path, *, older: bool = False, **changed: tuple[str, str]) -> Path:
    """The lab PBX's /etc/asterisk; `changed`: file (dots as __, slashes as ___) -> (text, replacement)."""
    files = pbx_files(Ports(*range(1, 10)), "a-long-random-secret", older=older)
    for name, (text, replacement) in changed.items():
        name = name.replace("___", "/").replace("__", ".")
        assert text in files[name], text
        files[name] = files[name].replace(text, replacement)
    write_config(directory, {"asterisk.conf": "[directories](!)\n[options]\nlive_dangerously = no\n", **files})
    return directory


def failed(directory: Path) -> list[str]:
    return [f"{check.name}: {check.detail}" for check in check_asterisk_conf(directory) if not check.ok]


@pytest.mark.parametrize("older", [False, True])
def test_the_shipped_configuration_is_good(tmp_path: Path, older: bool) -> None:
    checks = check_asterisk_conf(installed(tmp_path, older=older))
    assert [check for check in checks if not check.ok] == []
    assert {"vochid.conf [vochid] read", "vochid.conf [vochid] eventfilter", "asterisk.conf live_dangerously"} <= {check.name for check in checks}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"manager__conf": ("enabled = yes", "enabled = no")}, "nobody can log in"),
        ({"manager__conf": ("#include", ";#include")}, "no manager user vochid"),
        ({"manager__d___vochid__conf": ("read = system,call,agent,dialplan", "read = system,call")}, "missing: agent, dialplan"),
        ({"manager__d___vochid__conf": ("write = originate,reporting\n", "write = originate,reporting,command\n")}, "more than is needed: command"),
        ({"manager__d___vochid__conf": ("write = originate,reporting\n", "write = originate\n")}, "missing: reporting"),
        ({"manager__d___vochid__conf": ("deny = 0.0.0.0/0.0.0.0\n", "")}, "anybody may try"),
        ({"manager__d___vochid__conf": ("writetimeout = 5000", "writetimeout = 100")}, "100 ms"),
        ({"vochid-secret__conf": ("a-long-random-secret", "short")}, "shorter than 12"),
        ({"vochid-eventfilter__conf": ("name(DeviceStateChange)", "name(Nothing)")}, "keeps back what vochid needs: DeviceStateChange"),
        ({"vochid-eventfilter__conf": ("MIXMONITOR_FILENAME", "X")}, "keeps back what vochid needs: VarSet"),
        ({"extensions__d___vochid__conf": ('"${VOCHI_STATUS}" = ""', "0")}, "does not look at VOCHI_STATUS"),
        ({"extensions__d___vochid__conf": ('"${AGISTATUS}" != "SUCCESS"', "0")}, "does not look at AGISTATUS"),
        ({"extensions__d___vochid__conf": ("Dial(PJSIP/${VOCHI_TO}", "Dial(PJSIP/${VOCHI_REDIRECT}")}, "without FILTER"),
        ({"extensions__d___vochid__conf": ("PJSIP/${FILTER(0-9,${EXTEN})}@", "PJSIP/${EXTEN}@")}, "without FILTER"),
        ({"extensions__d___vochid__conf": ("${FILTER(0-9A-Za-z.,${UNIQUEID})}", "${CALLERID(num)}")}, "the recording's name"),
        ({"extensions__conf": ("VOCHID_FASTAGI = 127.0.0.1:8", "X = 1")}, "asks nobody"),
    ],
)  # fmt: skip
def test_every_fault_is_found(tmp_path: Path, changed: dict[str, tuple[str, str]], found: str) -> None:
    problems = failed(installed(tmp_path, **changed))
    assert len(problems) == 1, problems
    assert found in problems[0]


def test_live_dangerously_is_found_and_so_are_files_that_cannot_be_read(tmp_path: Path) -> None:
    installed(tmp_path)
    (tmp_path / "asterisk.conf").write_text("[options]\nlive_dangerously = yes\n")
    assert "SHELL" in failed(tmp_path)[0]
    (tmp_path / "asterisk.conf").write_text("[options\nlive_dangerously = yes\n")
    assert failed(tmp_path) == ["asterisk.conf: asterisk.conf: Missing '[' or ']' in category definition"]
    assert failed(tmp_path / "nowhere") == ["manager.conf: there is no manager user vochid: copy manager.d/vochid.conf and include it"]


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    write_config(tmp_path, {"a.conf": "[x]\n#include b.conf\n", "b.conf": '#include "a.conf"\n'})
    with pytest.raises(VochidError, match="without an end"):
        read_conf([tmp_path / "a.conf"], tmp_path)


def filters(name: str) -> list[tuple[str, str]]:
    return [
        (left.strip(), right.strip())
        for line in (SHIPPED / name).read_text().splitlines()
        if line.startswith("eventfilter")
        for left, right in [line.rsplit("=", 1)]
    ]


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(
    ("event", "headers", "passes"),
    [
        ("Newchannel", {}, True), ("Hangup", {}, True), ("ConfbridgeJoin", {}, True), ("QueueCallerAbandon", {}, True), ("AgentConnect", {}, True),
        ("DeviceStateChange", {"Device": "PJSIP/150"}, True), ("DeviceStateChange", {"Device": "Custom:dnd150"}, True),
        ("DeviceStateChange", {"Device": "Queue:sales_avail"}, False), ("DeviceStateChange", {"Device": "Local/150@x"}, False),
        ("VarSet", {"Channel": "PJSIP/150-1", "Variable": "MIXMONITOR_FILENAME", "Value": "/x.wav"}, True), ("VarSet", {"Variable": "RTPAUDIOQOS"}, False),
        ("Newexten", {"Application": "VoiceMail"}, True), ("Newexten", {"Application": "Dial"}, False), ("QueueMemberStatus", {}, False),
        ("PeerStatus", {}, False),
        ("RTCPSent", {}, False), ("Cdr", {}, False),
    ],
)  # fmt: skip
def test_both_syntaxes_let_through_the_same(name: str, event: str, headers: dict[str, str], passes: bool) -> None:
    assert lets_through(filters(name), event, headers) is passes


@pytest.mark.parametrize(
    ("lines", "passes"),
    [
        ([], True),
        ([("eventfilter", "!Event: Newchannel")], False),
        ([("eventfilter", "!Event: Hangup")], True),
        ([("eventfilter(action(exclude),name(Newchannel),method(none))", "")], False),
        ([("eventfilter(name(Newchannel),header(Channel),method(contains))", "x")], False),
        ([("eventfilter", "(unbalanced")], False),
    ],
)
def test_filters_of_other_hands_are_understood(lines: list[tuple[str, str]], passes: bool) -> None:
    assert lets_through(lines, "Newchannel", {}) is passes


def enterprise(**pbx: object) -> Enterprise:
    return Enterprise.model_validate(
        {
            "number": "0367",
            "name": "x",
            "lines": [{"number": "+375171112233"}],
            "pbxs": [{"name": "main", "host": "127.0.0.1", "secret": "manager-secret", **pbx}],
        }
    )


def test_snippets_are_what_ships_filled_in_and_hold_no_secret() -> None:
    text = snippets(enterprise(username="crm", allow_redirect=True), Listen(host="0.0.0.0", port=4573))
    assert "[crm]" in text
    assert "\nwrite = originate,reporting,call\n" in text
    assert "\nwrite = originate,reporting\n" not in text
    assert "VOCHID_FASTAGI = 127.0.0.1:4573" in text
    assert "exten => +375171112233,1,Gosub(vochid-record,s,1)\n same => n,Gosub(vochid-smart-redirect,s,1(0367,${EXTEN}))" in text
    assert "manager-secret" not in text


def test_for_a_pbx_elsewhere_the_address_is_left_open_and_a_listener_it_cannot_reach_is_told() -> None:
    text = snippets(enterprise(host="10.0.0.5"), Listen(host="127.0.0.1", port=4573))
    assert "permit = ADDRESS-OF-VOCHID/255.255.255.255" in text
    assert "VOCHID_FASTAGI = ADDRESS-OF-VOCHID:4573" in text
    assert "set VOCHID_FASTAGI to an address that 10.0.0.5 reaches" in text
