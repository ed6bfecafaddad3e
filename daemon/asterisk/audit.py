"""`vochid doctor --asterisk-conf DIR`: a PBX's files against what vochid needs and what keeps the PBX safe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from daemon.asterisk.conf import Section, read_conf
from daemon.asterisk.filters import lets_through
from daemon.errors import VochidError
from daemon.model.delivery import Check

READ, WRITE, TOO_MUCH = {"system", "call", "agent", "dialplan"}, {"originate", "reporting"}, {"all", "command", "system", "config"}
MIN_SECRET = 12
MIN_WRITETIMEOUT_MS = 1_000

# Without one of these the call model misses something; docs/calls.md.
_EVENTS: tuple[tuple[str, Mapping[str, str]], ...] = (
    *((event, {}) for event in (
        "FullyBooted", "Newchannel", "Newstate", "NewCallerid", "Rename", "HangupRequest", "SoftHangupRequest", "Hangup", "DialBegin", "DialState",
        "DialEnd", "OriginateResponse", "LocalBridge", "BridgeCreate", "BridgeDestroy", "BridgeEnter", "BridgeLeave", "BridgeMerge", "QueueCallerJoin",
        "QueueCallerAbandon",
    )),
    ("DeviceStateChange", {"Device": "PJSIP/150"}),
    ("VarSet", {"Variable": "MIXMONITOR_FILENAME"}),
    ("Newexten", {"Application": "VoiceMail"}),
)  # fmt: skip
DEFAULT_USERNAMES = ("vochid",)
_TRUE = {"yes", "true", "y", "t", "1", "on"}
_WILD = re.compile(r"_.*[.!]")
_RAW_EXTEN = re.compile(r"(?<!,)\$\{EXTEN(:[-0-9:]+)?\}")
_OUTSIDE = re.compile(r"(?<!,)\$\{(CALLERID\(|EXTEN|CALLERIDNUM|CALLERIDNAME)")


def check_asterisk_conf(directory: Path, usernames: tuple[str, ...] = DEFAULT_USERNAMES) -> list[Check]:
    """All checks, in order. Unreadable files are checks that failed, never exceptions."""
    checks: list[Check] = []
    for name, look in (("manager", lambda sections: _manager(sections, usernames)), ("extensions", _dialplan), ("asterisk", _options)):
        paths = [path for path in (directory / f"{name}.conf",) if path.is_file()] or sorted(directory.glob(f"{name}.d/*.conf"))
        try:
            checks += look(read_conf(paths, directory))
        except (VochidError, OSError) as error:
            checks.append(Check(f"{name}.conf", False, str(error)))
    return checks


def _manager(sections: list[Section], usernames: tuple[str, ...]) -> Iterator[Check]:
    general = next((section for section in sections if section.name == "general"), None)
    if general is not None:
        enabled = (general.get("enabled") or "").lower() in _TRUE
        yield Check(f"{general.file} [general] enabled", enabled, "" if enabled else "enabled = yes is missing: nobody can log in")
    users = [section for section in sections if section.name in usernames]
    if not users:
        yield Check("manager.conf", False, f"there is no manager user {' or '.join(usernames)}: copy manager.d/vochid.conf and include it")
    for user in users:
        for name, problem in _user_problems(user):
            yield Check(f"{user.file} [{user.name}] {name}", not problem, problem)


def _user_problems(user: Section) -> Iterator[tuple[str, str]]:
    read, write = (set((user.get(name) or "").replace(" ", "").split(",")) for name in ("read", "write"))
    missing = READ - read if "all" not in read else set()
    yield "read", f"missing: {', '.join(sorted(missing))}" if missing else ""
    wide, lacking = TOO_MUCH & write, WRITE - write
    if wide:
        yield "write", f"more than is needed: {', '.join(sorted(wide))}"
    else:
        yield "write", f"missing: {', '.join(sorted(lacking))}" if lacking else ""
    secret = user.get("secret") or ""
    weak = f"shorter than {MIN_SECRET} characters" if secret else "there is none: write `secret = …` into vochid-secret.conf"
    yield "secret", "" if len(secret) >= MIN_SECRET else weak
    walled = user.get("acl") is not None or (user.get("deny") is not None and user.get("permit") is not None)
    yield "permit", "" if walled else "anybody may try to log in: deny everybody and permit the address of vochid"
    timeout = user.get("writetimeout") or "100"
    slow = timeout.isdigit() and int(timeout) >= MIN_WRITETIMEOUT_MS
    yield "writetimeout", "" if slow else f"{timeout} ms: a client that is busy for a moment is thrown out; 5000 is good"
    filters = [(name, value) for name, value in user.items if name.startswith("eventfilter")]
    kept_back = [event for event, headers in _EVENTS if not lets_through(filters, event, headers)]
    yield "eventfilter", f"keeps back what vochid needs: {', '.join(kept_back)}" if kept_back else ""


def _dialplan(sections: list[Section]) -> Iterator[Check]:
    asks = False
    for section in sections:
        text = "\n".join(value for _, value in section.items)
        if re.search(r"agi://[^,)]*/smart-redirect", text):
            asks = True
            wanted = {"AGISTATUS": "the socket may be down", "VOCHI_STATUS": "a bare close reads as SUCCESS with nothing set"}
            lacking = [f"it does not look at {name}: {why}" for name, why in wanted.items() if f"${{{name}}}" not in text]
            yield Check(f"{section.file} [{section.name}] smart redirect", not lacking, "; ".join(lacking))
            raw = re.search(r"Dial\([^\n]*(?<!,)\$\{VOCHI_REDIRECT\}", text) is not None
            yield Check(f"{section.file} [{section.name}] dials", not raw, "VOCHI_REDIRECT goes into Dial without FILTER(0-9,…)" if raw else "")
        yield from _hostile(section)
    if asks:
        known = any(section.name == "globals" and section.get("VOCHID_FASTAGI") for section in sections)
        uses = any("${VOCHID_FASTAGI}" in value for section in sections for _, value in section.items)
        if uses and any(section.name == "globals" for section in sections):
            yield Check("[globals] VOCHID_FASTAGI", known, "" if known else "is not set: the dialplan asks nobody")


def _hostile(section: Section) -> Iterator[Check]:
    """What comes from outside must not reach a dial string or a file name as it came."""
    pattern = ""
    for name, value in section.items:
        if name == "exten":
            pattern = value.lstrip("> ").partition(",")[0]
        where = f"{section.file} [{section.name}] {pattern}"
        if _WILD.match(pattern) and re.search(r"\b(Dial|System|TrySystem|Originate)\(", value) and _RAW_EXTEN.search(value):
            yield Check(where, False, "${EXTEN} of a pattern that takes anything goes into a dial string without FILTER(0-9,…)")
        if (found := re.search(r"\bMixMonitor\((.*)", value)) and _OUTSIDE.search(found[1]):
            yield Check(where, False, "the recording's name contains what came from outside: name it by ${UNIQUEID}")


def _options(sections: list[Section]) -> Iterator[Check]:
    for section in sections:
        value = section.get("live_dangerously") if section.name == "options" else None
        if value is not None:
            dangerous = value.lower() in _TRUE
            yield Check(f"{section.file} live_dangerously", not dangerous, "lets manager users run SHELL() and FILE(): set it to no" if dangerous else "")
