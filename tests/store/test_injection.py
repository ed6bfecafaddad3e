"""One list of hostile texts, through every way on which a caller, a CRM, a webhook or a PBX can bring them: AMI, dialplan, SQL, HTML, CSV, logs, alerts."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

import admin_http
from adapters.retailcrm.deliver import RetailCrm
from admin_http.sheet import heading, rows
from admin_http.views import Views
from daemon.ami.actions import Originate, channel_of
from daemon.ami.wire import ActionError, Frame, FrameReader, encode_action, escape_variable
from daemon.fastagi.wire import CommandError, set_variable
from daemon.lookup.name import caller_name
from daemon.model.phone import BadNumber, parse_dial_string, parse_phone
from daemon.model.signal import Ended
from daemon.recordings.names import download_name, parts_of
from daemon.store.call_query import CallFilter
from daemon.store.calls import CallRepository
from daemon.store.pool import Database
from daemon.telemetry.logs import configure
from tests.rig import NUMBER, a_call, rig

HOSTILE = [
    "x\r\nAction: Originate\r\nChannel: PJSIP/itsp/1900",
    "x\nAction: Command",
    "x\rEvent: Hangup",
    "x\0y",
    "\x1a",
    "${SHELL(id)}",
    "$[1+1]",
    "${EXTEN}&PJSIP/itsp/1900",
    "500&PJSIP/itsp/1900",
    "500,tT",
    "150|180|g",
    "150;ext=1",
    "1)\nexten => _X.,1,Dial(x",
    '"; DROP TABLE calls; --',
    "'; drop table calls; --",
    "' or '1'='1",
    "%' or 1=1 --",
    "\\'; select 1",
    "{{7*7}}",
    "{% raw %}",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "=cmd|'/c calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "＝1+1",
    "\u202e0704526926573+",
    "\u2028x",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "%n%s%x",
    "../../../etc/passwd",
    "..\\..\\x",
    "/etc/passwd",
    "a" * 20_000,
    "１２３４５６７８",
    "\U0001f4a3",
    'SET VARIABLE X "1"\n200 result=1',
    "HANGUP\n",
    'name" 1\nEXEC System "id',
]
SENDABLE = [text for text in HOSTILE if "\0" not in text]
SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}


@pytest.mark.parametrize("text", HOSTILE)
def test_towards_the_pbx_it_is_one_value_or_nothing(text: str) -> None:
    for headers in ([("Action", "Redirect"), ("Channel", text)], [("Action", "Originate"), ("Variable", f"X={escape_variable(text)}")]):
        try:
            sent = encode_action(headers)
        except (ActionError, UnicodeEncodeError):
            continue
        [frame] = FrameReader().feed(sent)
        assert isinstance(frame, Frame)
        assert len(list(frame.items())) == len(headers), "one action, with its own headers"
    base = {"channel": "Local/150@inoffice", "context": "inoffice", "phone": "+375296254070", "second": "exten", "shown": "+375296254070", "timeout_ms": 30_000,
            "channel_id": "vochid-click-1", "other_channel_id": "vochid-click-1-2"}  # fmt: skip
    for field in ("context", "phone", "shown", "channel_id", "other_channel_id"):
        with pytest.raises(ActionError):
            Originate(**{**base, field: text}).headers()  # type: ignore[arg-type]
    with contextlib.suppress(ActionError):  # besides, an extension must be one of the enterprise's
        headers = Originate(**{**base, "channel": channel_of("Local/{extension}@{context}", text, "inoffice")}).headers()  # type: ignore[arg-type]
        assert re.fullmatch(r"Local/[A-Za-z0-9_.@*#+:/-]+", dict(headers)["Channel"]), "one channel, and nothing that Dial gives a meaning to"
    for read in (parse_dial_string, lambda value: parse_phone(value, "BY")):
        try:
            dialled = read(text)
        except BadNumber:
            continue
        assert re.fullmatch(r"\+?[0-9*#]{1,20}", dialled), "what passes is digits"


@pytest.mark.parametrize("text", HOSTILE)
def test_towards_the_dialplan_a_name_is_one_quoted_word_without_meaning(text: str) -> None:
    name = caller_name(text)
    assert len(name) <= 80
    assert not set(name) & set("\"\\`$;|,'\r\n\0")
    sent = set_variable("VOCHI_CALLER_NAME", name)
    assert sent.count(b"\n") == 1
    assert sent.endswith(b"\n")
    try:
        raw = set_variable("VOCHI_CALLER_NAME", text)
    except (CommandError, UnicodeEncodeError):
        return
    assert raw.count(b"\n") == 1
    assert re.fullmatch(rb'SET VARIABLE VOCHI_CALLER_NAME "(?:[^"\\]|\\.)*"\n', raw), "quoted to its end"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_recordings_name_leads_nowhere_else_and_is_plain_in_headers(text: str) -> None:
    parts = parts_of(text, "/var/spool/asterisk/monitor")
    assert parts is None or all(part not in ("", ".", "..") and "/" not in part for part in parts)
    assert re.fullmatch(r"[0-9A-Za-z_+-][0-9A-Za-z._+-]*", download_name(text))


@pytest.mark.parametrize("text", HOSTILE)
def test_in_a_page_it_is_text_and_in_a_table_it_is_no_formula(text: str) -> None:
    environment = Views()._environments["ru"]
    shown = environment.from_string('<p title="{{ x }}">{{ x }}</p>{{ t(x) }}').render(x=text)
    assert "<script" not in shown
    assert "<img" not in shown
    assert shown.count('"') == 2
    call = {**a_call().to_json(), "customer_name": text, "line": text, "queue": text, "recordings": [text]}
    table = list(csv.reader(io.StringIO((heading() + rows([call], "Europe/Minsk")).lstrip("\ufeff"), newline=""), delimiter=";"))
    assert len(table) == 2, "one line for one call"
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝")) for cell in table[1] if not re.fullmatch(r"-?[0-9.,]*", cell))


def test_no_template_shows_anything_unescaped_but_our_own_picture_of_a_code() -> None:
    found = {
        f"{path.name}: {match}"
        for path in (Path(admin_http.__file__).parent / "templates").rglob("*.html")
        for match in re.findall(r"{{[^}]*\|\s*safe[^}]*}}|{%\s*autoescape false", path.read_text())
    }
    assert found == {"totp.html: {{ qr | safe }}"}


@pytest.mark.parametrize("format_", ["json", "console"])
def test_in_a_log_it_is_one_line_without_control_characters(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", format_)
    try:
        for text in HOSTILE:
            structlog.get_logger().info("heard", name=text, nested={"a": [text]})
        lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    finally:
        structlog.reset_defaults()
    assert len(lines) == len(HOSTILE)
    own = re.compile(r"\x1b\[[0-9;]*m") if format_ == "console" else re.compile(r"(?!)")
    for line in lines:
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in own.sub("", line)), repr(line[:200])
        if format_ == "json":
            json.loads(line)


async def test_in_the_database_it_is_a_value_that_comes_back_and_is_found_by_no_other(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        calls = CallRepository(db)
        for n, text in enumerate(SENDABLE):
            stored = replace(a_call(started_at=time.time() - 1_000 - n), customer_name=text[:2_000], queue=text[:200], recordings=(text[:200],))
            await r.record(stored, Ended(()), wake=False)
            assert (await calls.get(NUMBER, stored.id))["customer_name"] == text[:2_000]
        for text in HOSTILE:
            for asked in (CallFilter(search=text), CallFilter(number=text), CallFilter(extension=text), CallFilter(line=text), CallFilter(queue=text)):
                if "\0" not in text:
                    await calls.page(NUMBER, asked)
        async with db.tenant(NUMBER) as connection:
            assert await connection.fetchval("select count(*) from calls") == len(SENDABLE)
        assert (await calls.page("0999", CallFilter(search="' or '1'='1")))[0] == []
