"""Every parser of what strangers send: any input gives a value or the error that it documents, soon and in bounded memory.

Inputs are good ones that were spoiled: cut, repeated, spliced with what parsers trip over. `make fuzz` plays a million of them (FUZZ=50000 for each);
the suite plays a seeded few.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from adapters.amocrm import inbound as amocrm
from adapters.bitrix24 import inbound as bitrix24
from adapters.registry import adapters
from adapters.retailcrm import inbound as retailcrm
from adapters.tickets import inbound as tickets
from admin_http.api.routing import parse_json
from daemon.ami.wire import Frame, FrameReader, WireError, read_banner
from daemon.calls.posted import read_posted
from daemon.cdr.rows import read_csv, row_of
from daemon.errors import VochidError
from daemon.fastagi.wire import AgiError, AgiReader, CommandError, set_variable
from daemon.lookup.name import caller_name
from daemon.model.phone import BadNumber, parse_dial_string, parse_phone, shown_number
from daemon.model.phone_forms import forms_of
from daemon.recordings.links import read as read_link
from daemon.recordings.names import candidates, download_name, parts_of
from daemon.security.cabinet import token_id
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.tenants.documents import Documents
from daemon.tenants.pattern import check_pattern

EXAMPLES = int(os.environ.get("FUZZ", "80"))
LONGEST_S = 5.0
MOST_GROWN_KB = 300_000
TRIP = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\0",
    b"\x1a",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u202e".encode(),
    b"${SHELL(id)}",
    b"$[1+1]",
    b'"',
    b"\\",
    b"'; drop table calls; --",
    b"&PJSIP/x/1900",
    b",",
    b"|",
    b";ext=1",
    b"Event: Hangup",
    b"Response: Success",
    b"ActionID: 1",
    b"agi_network: yes",
    b"200 result=1",
    b"HANGUP\n",
    b"9" * 400,
    b"-1",
    b"1e999",
    b"NaN",
    b"[" * 200,
    b"{" * 200,
    b"<script>",
    b"=cmd|'/c calc'!A0",
    b"../../etc/passwd",
    "１２３".encode(),
    b"%00",
    b"(a+)+$",
    b"",
]
AMI = b"Event: Newchannel\r\nPrivilege: call,all\r\nChannel: PJSIP/provider-00000001\r\nCallerIDNum: 80296254070\r\nUniqueid: 1.1\r\nLinkedid: 1.1\r\n\r\n" * 2
AGI = b"agi_network: yes\nagi_network_script: smart-redirect?enterprise=0367\nagi_callerid: 80296254070\nagi_uniqueid: 1.1\nagi_arg_1: 0367\n\n200 result=1\n"
PAIRS = [
    ("clientId", "client-id-0123456789"),
    ("userId", "19"),
    ("phone", "+375296254070"),
    ("code", "150"),
    ("status", "free"),
    ("event", "ONEXTERNALCALLSTART"),
    ("auth[application_token]", "token-0123456789"),
    ("data[PHONE_NUMBER]", "+375296254070"),
    ("data[USER_ID]", "1"),
    ("data[CALL_ID]", "externalCall.1"),
    ("contacts[update][0][id]", "1"),
    ("contacts[update][0][custom_fields][0][values][0][value]", "+375296254070"),
    ("account[id]", "321"),
]
BODY: dict[str, Any] = {
    "enterprise_number": "0367",
    "event_type": "hangup",
    "number": "A1",
    "external_ticket_id": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "subject": "x",
    "message": "y",
    "ticket_id": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "theme": "x",
    "project": "tma",
    "external_message_id": "7",
    "sender": "crm",
    "body": "z",
    "status": "open",
    "attachments": [{"name": "a.pdf", "url": "https://crm.example/a", "mime": "application/pdf", "size": 5}],
    "phone": "+375296254070",
    "payload": {
        "Token": "t",
        "UniqueId": "1.1",
        "Phone": "80296254070",
        "Extensions": ["150"],
        "Trunk": "PJSIP/provider",
        "CallType": 0,
        "CallStatus": "2",
        "StartTime": "2026-11-21 08:00:00",
        "EndTime": "2026-11-21 08:01:00",
    },
    "contact": {"name": "Имя", "phone": "+375296254070"},
    "lead": {"name": "Заказ", "price": 5},
}
DOCUMENT: dict[str, Any] = {
    "number": "0367",
    "name": "Июнь",
    "pbxs": [
        {
            "name": "main",
            "host": "127.0.0.1",
            "secret": "ami-secret-1",
            "trunks": ["PJSIP/provider"],
            "internal_number": "^1\\d\\d$",
            "recordings": {"source": "directory", "path": "/rec"},
            "cdr": {"source": "none"},
        }
    ],
    "lines": [{"number": "+375171112233"}],
    "internal_phones": [{"number": "150", "owner": ""}],
    "dial_rules": {"per_day": 5, "hours": {"from": "09:00", "to": "18:00"}},
    "retention": {"calls_days": 365},
    "smart_redirect": {"mode": "name"},
    "integrations": {
        "retailcrm": {"domain": "https://example.retailcrm.ru", "api_key": "key-0123456789"},
        "tickets": {"role": "crm", "remote_url": "https://tma.example", "deploy_token": "token-0123456789"},
    },
}


@st.composite
def spoiled(draw: st.DrawFn, sample: bytes) -> bytes:
    """A good input with up to six things done to it."""
    data = sample
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(data))))
        until = min(len(data), at + draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(["trip", "cut", "repeat", "noise", "end"]))
        if kind == "trip":
            data = data[:at] + draw(st.sampled_from(TRIP)) + data[at:]
        elif kind == "cut":
            data = data[:at] + data[until:]
        elif kind == "repeat":
            data = data[:until] + data[at:until] * draw(st.integers(1, 30)) + data[until:]
        elif kind == "noise":
            data = data[:at] + draw(st.binary(max_size=20)) + data[until:]
        else:
            data = data[:at]
    return data[:200_000]


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(TRIP).map(text_of), st.text(max_size=30), st.builds(list), st.builds(dict),
    st.builds(lambda: [[[[{"a": [1]}]]]]), st.just("x" * 100_000),
)  # fmt: skip


@st.composite
def misshapen(draw: st.DrawFn, sample: Any) -> Any:
    """A good body in which values have become something else, are gone, or others have come."""
    copy = json.loads(json.dumps(sample))
    for _ in range(draw(st.integers(1, 4))):
        at = copy
        while isinstance(at, dict | list) and at:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = draw(st.sampled_from(keys))
            below = at[key]
            if not isinstance(below, dict | list) or not below or draw(st.booleans()):
                if isinstance(at, dict) and draw(st.integers(0, 4)) == 0:
                    del at[key]
                else:
                    at[key] = draw(VALUES)
                if isinstance(at, dict) and draw(st.integers(0, 6)) == 0:
                    at[draw(st.text(max_size=10))] = draw(VALUES)
                break
            at = below
    return copy


@st.composite
def many_pairs(draw: st.DrawFn) -> list[tuple[str, str]]:
    chosen = draw(st.lists(st.sampled_from(PAIRS), max_size=20))
    odd = st.one_of(st.sampled_from(TRIP).map(text_of), st.text(max_size=60), st.just("9" * 5_000))
    return [(draw(odd) if draw(st.integers(0, 9)) == 0 else name, draw(odd) if draw(st.booleans()) else value) for name, value in chosen]


def _frames(data: bytes) -> None:
    reader = FrameReader()
    for start in range(0, len(data), 7_919):
        for frame in reader.feed(data[start : start + 7_919]):
            if isinstance(frame, Frame):
                list(frame.items())
    read_banner(data)


def _agi(data: bytes) -> None:
    reader = AgiReader()
    for start in range(0, len(data), 61):
        reader.feed(data[start : start + 61])


def _document(body: Any) -> None:
    documents = Documents(Vault(["k" * 40]), EgressPolicy(), {name: adapter.settings for name, adapter in adapters().items()})
    if isinstance(body, dict):
        documents.merged({**body, "number": "0367"}, None)


def _texts(data: bytes) -> None:
    text = text_of(data)
    shown_number(text, "BY")
    assert all(c.isprintable() for c in caller_name(text))
    name = download_name(text)
    assert "/" not in name
    assert not name.startswith(".")
    parts = parts_of(text, "/var/spool/asterisk/monitor")
    assert parts is None or all(part != ".." and "/" not in part for names in candidates(parts) for part in names)
    read_link(text, [b"k" * 32])
    token_id(Vault(["k" * 40]), text)
    EgressPolicy(["10.0.0.0/8"]).problem_with(text)
    EgressPolicy().permits(text)


def _rows(data: bytes) -> None:
    for row in read_csv(text_of(data).splitlines(keepends=True)):
        str(row)


def _one(*calls: Callable[[Any], object]) -> Callable[[Any], None]:
    """Each with the same input; an error of one does not keep the others from it."""

    def run(value: Any) -> None:
        for call in calls:
            with contextlib.suppress(*DOCUMENTED):
                call(value)

    return run


DOCUMENTED = (
    WireError, AgiError, CommandError, VochidError, BadNumber, retailcrm.BadInbound, bitrix24.BadInbound, amocrm.BadInbound, amocrm.Unproved, tickets.BadTicket,
)  # fmt: skip
CSV = (
    b'"","80296254070","150","from-trunk","""Name"" <80296254070>","PJSIP/provider-1","PJSIP/150-2","Dial","x","2026-11-21 08:00:00",'
    b'"2026-11-21 08:00:05","2026-11-21 08:01:00",60,55,"ANSWERED","DOCUMENTATION","1.1",""\n'
)
TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], object]]] = {
    "AMI frames": (spoiled(AMI), _frames),
    "AGI dialogues": (spoiled(AGI), _agi),
    "AGI variables": (spoiled(b"VOCHI_CALLER_NAME").map(text_of), _one(lambda t: set_variable("VOCHI_CALLER_NAME", t), lambda t: set_variable(t, "150"))),
    "RetailCRM's clicks": (many_pairs(), _one(retailcrm.token_of, retailcrm.read_click, retailcrm.read_status)),
    "Bitrix24's events": (many_pairs(), _one(bitrix24.token_of, bitrix24.read_event)),
    "amoCRM's news": (many_pairs(), _one(amocrm.read_changed)),
    "amoCRM's orders": (misshapen(BODY), _one(lambda body: amocrm.read_order(body, "BY"))),
    "amoCRM's tokens": (spoiled(b"eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2V4YW1wbGUuYW1vY3JtLnJ1IiwianRpIjoiMSJ9.AAAA").map(text_of), _one(amocrm.claimed)),
    "tickets": (misshapen(BODY), _one(tickets.read_ticket, tickets.read_message, tickets.read_status, tickets.read_legacy_ticket, tickets.read_attachments)),
    "posted calls": (misshapen(BODY), _one(lambda body: read_posted(body, "Europe/Minsk"))),
    "JSON bodies": (spoiled(json.dumps(BODY).encode()), parse_json),
    "settings": (misshapen(DOCUMENT), _document),
    "patterns": (spoiled(b"^1\\d{2,3}[0-9]$").map(text_of), lambda text: check_pattern(text)),
    "phones": (spoiled(b"+375 (29) 625-40-70").map(text_of), _one(lambda t: parse_phone(t, "BY"), parse_dial_string, lambda t: forms_of(t, "BY"))),
    "names, links and addresses": (spoiled(b"https://crm.example/var/spool/asterisk/monitor/2026/x.wav"), _texts),
    "CDR files": (spoiled(CSV), _rows),
    "CDR rows": (misshapen({"calldate": "2026-11-21 08:00:00", "src": "80296254070", "dst": "150", "channel": "a", "uniqueid": "1.1", "duration": 5}), row_of),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_gives_a_value_or_a_documented_error_in_time_and_bounded_memory(name: str) -> None:
    inputs, parse = TARGETS[name]
    allowed: Iterable[type[Exception]] = (*DOCUMENTED, ValueError) if name == "patterns" else DOCUMENTED
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=EXAMPLES, derandomize=EXAMPLES < 1_000, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(inputs)
    def play(value: Any) -> None:
        began = time.process_time()
        with contextlib.suppress(*allowed):
            parse(value)
        assert time.process_time() - began < LONGEST_S, "no input may hold the loop"

    play()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWN_KB
