"""Every parser of what strangers send: any input gives a value or the error that it documents, soon and in bounded memory.

Inputs are good ones that were spoiled: cut, repeated, spliced with what parsers trip over. The suite has hypothesis choose a few; `make fuzz` plays a
million, chosen by a number each (FUZZ=60000 for each parser), which is fifty times as fast.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

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

EXAMPLES = 80
MANY = int(os.environ.get("FUZZ", "0"))
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


T = TypeVar("T")


class Pick(Protocol):
    """Where choices come from."""

    def integer(self, least: int, most: int) -> int: ...

    def of(self, options: Sequence[T]) -> T: ...

    def binary(self, most: int) -> bytes: ...

    def text(self, most: int) -> str: ...


@dataclass
class Drawn:
    """From hypothesis."""

    draw: st.DrawFn

    def integer(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def of(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))

    def binary(self, most: int) -> bytes:
        return self.draw(st.binary(max_size=most))

    def text(self, most: int) -> str:
        return self.draw(st.text(max_size=most))


class Seeded:
    """From a number."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def integer(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def of(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def binary(self, most: int) -> bytes:
        return self._random.randbytes(self._random.randint(0, most))

    def text(self, most: int) -> str:
        planes = [(0, 0x7F), (0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
        return "".join(chr(self._random.randint(*self._random.choice(planes))) for _ in range(self._random.randint(0, most)))


Make = Callable[[Pick], Any]


def spoiled(sample: bytes) -> Make:
    """A good input with up to six things done to it."""

    def make(pick: Pick) -> bytes:
        data = sample
        for _ in range(pick.integer(0, 6)):
            at = pick.integer(0, len(data))
            until = min(len(data), at + pick.integer(0, 40))
            match pick.of(("trip", "cut", "repeat", "noise", "end")):
                case "trip":
                    data = data[:at] + pick.of(TRIP) + data[at:]
                case "cut":
                    data = data[:at] + data[until:]
                case "repeat":
                    data = data[:until] + data[at:until] * pick.integer(1, 30) + data[until:]
                case "noise":
                    data = data[:at] + pick.binary(20) + data[until:]
                case _:
                    data = data[:at]
        return data[:200_000]

    return make


def as_text(make: Make) -> Make:
    return lambda pick: text_of(make(pick))


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def odd_value(pick: Pick) -> Any:
    match pick.integer(0, 9):
        case 0 | 1:
            return pick.of((None, True, False, [], {}, [[[[{"a": [1]}]]]], "x" * 100_000))
        case 2 | 3:
            return pick.of((0, -1, 2**31, 2**63, -(10**30), pick.integer(-(10**6), 10**6)))
        case 4:
            return pick.of((0.0, -0.0, 0.1, 1e308, math.inf, -math.inf, math.nan, pick.integer(0, 10**9) / 7))
        case 5 | 6:
            return text_of(pick.of(TRIP))
        case _:
            return pick.text(30)


def misshapen(sample: Any) -> Make:
    """A good body in which values have become something else, are gone, or others have come."""
    written = json.dumps(sample)

    def make(pick: Pick) -> Any:
        copy = json.loads(written)
        for _ in range(pick.integer(1, 4)):
            at = copy
            while isinstance(at, dict | list) and at:
                key = pick.of(list(at) if isinstance(at, dict) else range(len(at)))
                below = at[key]
                if not isinstance(below, dict | list) or not below or pick.integer(0, 1):
                    if isinstance(at, dict) and pick.integer(0, 4) == 0:
                        del at[key]
                    else:
                        at[key] = odd_value(pick)
                    if isinstance(at, dict) and pick.integer(0, 6) == 0:
                        at[pick.text(10)] = odd_value(pick)
                    break
                at = below
        return copy

    return make


def many_pairs(pick: Pick) -> list[tuple[str, str]]:
    def odd() -> str:
        return pick.of((text_of(pick.of(TRIP)), pick.text(60), "9" * 5_000))

    pairs = (pick.of(PAIRS) for _ in range(pick.integer(0, 20)))
    return [(odd() if pick.integer(0, 9) == 0 else name, odd() if pick.integer(0, 1) else value) for name, value in pairs]


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
TARGETS: dict[str, tuple[Make, Callable[[Any], object]]] = {
    "AMI frames": (spoiled(AMI), _frames),
    "AGI dialogues": (spoiled(AGI), _agi),
    "AGI variables": (as_text(spoiled(b"VOCHI_CALLER_NAME")), _one(lambda t: set_variable("VOCHI_CALLER_NAME", t), lambda t: set_variable(t, "150"))),
    "RetailCRM's clicks": (many_pairs, _one(retailcrm.token_of, retailcrm.read_click, retailcrm.read_status)),
    "Bitrix24's events": (many_pairs, _one(bitrix24.token_of, bitrix24.read_event)),
    "amoCRM's news": (many_pairs, _one(amocrm.read_changed)),
    "amoCRM's orders": (misshapen(BODY), _one(lambda body: amocrm.read_order(body, "BY"))),
    "amoCRM's tokens": (as_text(spoiled(b"eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2V4YW1wbGUuYW1vY3JtLnJ1IiwianRpIjoiMSJ9.AAAA")), _one(amocrm.claimed)),
    "tickets": (misshapen(BODY), _one(tickets.read_ticket, tickets.read_message, tickets.read_status, tickets.read_legacy_ticket, tickets.read_attachments)),
    "posted calls": (misshapen(BODY), _one(lambda body: read_posted(body, "Europe/Minsk"))),
    "JSON bodies": (spoiled(json.dumps(BODY).encode()), parse_json),
    "settings": (misshapen(DOCUMENT), _document),
    "patterns": (as_text(spoiled(b"^1\\d{2,3}[0-9]$")), lambda text: check_pattern(text)),
    "phones": (as_text(spoiled(b"+375 (29) 625-40-70")), _one(lambda t: parse_phone(t, "BY"), parse_dial_string, lambda t: forms_of(t, "BY"))),
    "names, links and addresses": (spoiled(b"https://crm.example/var/spool/asterisk/monitor/2026/x.wav"), _texts),
    "CDR files": (spoiled(CSV), _rows),
    "CDR rows": (misshapen({"calldate": "2026-11-21 08:00:00", "src": "80296254070", "dst": "150", "channel": "a", "uniqueid": "1.1", "duration": 5}), row_of),
}  # fmt: skip


@st.composite
def drawn(draw: st.DrawFn, make: Make) -> Any:
    return make(Drawn(draw))


def meet(name: str, value: Any) -> None:
    """One input."""
    allowed: Iterable[type[Exception]] = (*DOCUMENTED, ValueError) if name == "patterns" else DOCUMENTED
    began = time.process_time()
    with contextlib.suppress(*allowed):
        TARGETS[name][1](value)
    assert time.process_time() - began < LONGEST_S, "no input may hold the loop"


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_gives_a_value_or_a_documented_error_in_time_and_bounded_memory(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    make = TARGETS[name][0]
    for number in range(MANY):
        value = make(Seeded(f"{name} {number}"))
        try:
            meet(name, value)
        except Exception as error:
            raise AssertionError(f"input {number}: {value!r:.3000}") from error
    if not MANY:

        @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(drawn(make))
        def play(value: Any) -> None:
            meet(name, value)

        play()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWN_KB
