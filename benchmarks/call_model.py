"""The call model alone: events per second on recorded calls, and what an event costs with few and with many calls alive.

Every call is a recording of the lab with identities of its own; only events that the model handles are counted. Beside it,
in the same run on the same events, VoIPGRID's cacofonisk when it is installed (dev extra).
"""

from __future__ import annotations

import gc
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from resource import RUSAGE_SELF, getrusage

from daemon.calls.correlator import Correlator
from daemon.calls.replay import read_trace
from daemon.calls.view import PbxView
from lab.office import LINES, MOBILES, PHONES, REPOSITORY, TRUNKS

GOLDEN = REPOSITORY / "tests/golden"
NAMES = (
    "inbound-answered", "ring-group", "queue-ringall", "inbound-cancelled", "outbound-answered", "internal-answered", "click-local-dial",
    "blind-by-phone", "attended-by-phone",
)  # fmt: skip
VIEW = PbxView(
    enterprise="bench", pbx="main", trunks=TRUNKS, inbound_contexts=frozenset({"from-trunk"}), internal_context="inoffice",
    internal_number=r"^1\d\d$", internal_phones=frozenset(PHONES), lines=tuple(LINES), employee_mobiles=frozenset(MOBILES),
)  # fmt: skip


class Parsed(dict[str, str]):
    """An event with its headers in a dict: what both models are given."""

    __slots__ = ("event",)

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(headers)
        self.event = headers["Event"]


@dataclass(frozen=True)
class Figures:
    """Of one model: events per second, and microseconds per event beside 10 and beside 10,000 live calls."""

    events_per_s: float
    us_at_10: float
    us_at_10_000: float


Feed = Callable[[Parsed, float], object]


def _recorded(name: str) -> list[dict[str, str]]:
    handled = Correlator(VIEW)._handlers
    trace = GOLDEN / name / "asterisk-22.ami"
    events = [event for event, _ in read_trace(trace.name, trace.read_bytes(), None) if event.event in handled]
    keys = re.compile(rb"^([A-Za-z0-9-]+): ", re.MULTILINE)
    return [{key: event.get(key) or "" for key in dict.fromkeys(found.decode() for found in keys.findall(event.raw))} for event in events]  # type: ignore[attr-defined]


def _renamed(events: Iterable[dict[str, str]], mark: str) -> list[Parsed]:
    ids = ("Uniqueid", "Linkedid")
    return [Parsed({key: f"{mark}{value}" if value and key.endswith(ids) else value for key, value in event.items()}) for event in events]


def _begun(events: list[dict[str, str]]) -> list[dict[str, str]]:
    """Until both sides are in their bridge: a call that lives."""
    enters = [n for n, event in enumerate(events) if event["Event"] == "BridgeEnter"]
    return events[: enters[1] + 1]


def _stream(recorded: list[list[dict[str, str]]], calls: int, mark: str) -> list[Parsed]:
    return [event for n in range(calls) for event in _renamed(recorded[n % len(recorded)], f"{mark}{n}-")]


def _time(feed: Feed, events: list[Parsed]) -> float:
    """Microseconds of user CPU per event; the clock of the calls runs a millisecond an event."""
    gc.collect()
    started, at = getrusage(RUSAGE_SELF).ru_utime, 1_000_000.0
    for event in events:
        feed(event, at)
        at += 0.001
    return (getrusage(RUSAGE_SELF).ru_utime - started) / len(events) * 1e6


def measure(makes: Mapping[str, Callable[[], Feed]], rounds: int = 9) -> dict[str, Figures]:
    """The figures of the models that `makes` make: in turns on the same events, the best of `rounds`, so that who else works on this machine
    disturbs all of them alike.
    """
    recorded = [_recorded(name) for name in NAMES]
    stream = _stream(recorded, 360, "")
    alone = dict.fromkeys(makes, math.inf)
    for _ in range(rounds):
        for name, make in makes.items():
            alone[name] = min(alone[name], _time(make(), stream))
    few, many = (_beside(makes, recorded, alive, rounds) for alive in (10, 10_000))
    return {name: Figures(1e6 / alone[name], few[name], many[name]) for name in makes}


def _beside(makes: Mapping[str, Callable[[], Feed]], recorded: list[list[dict[str, str]]], alive: int, rounds: int) -> dict[str, float]:
    feeds, best = {name: make() for name, make in makes.items()}, dict.fromkeys(makes, math.inf)
    for n in range(alive):
        for event in _renamed(_begun(recorded[0]), f"live{n}-"):
            for feed in feeds.values():
                feed(event, 1_000.0)
    gc.collect()
    gc.freeze()
    for turn in range(rounds):
        stream = _stream(recorded, 90, f"{turn}-")
        for name, feed in feeds.items():
            best[name] = min(best[name], _time(feed, stream))
    gc.unfreeze()
    return best


def ours() -> Feed:
    """A fresh call model of ours."""
    return Correlator(VIEW).feed


def peer() -> Callable[[], Feed] | None:
    """cacofonisk's model with a reporter that does nothing; None when it is not installed."""
    try:
        from cacofonisk import BaseReporter, EventHandler  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return None

    logging.getLogger("cacofonisk").setLevel(logging.CRITICAL)  # it warns of every channel that it forgot

    def make() -> Feed:
        handler = EventHandler(reporter=BaseReporter())
        return lambda event, at: handler.on_event(event)

    return make
