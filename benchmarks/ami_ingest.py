"""AMI from bytes: to events in the hands of who asked for them, and to finished calls. CPU time of one core, no sockets.

The bytes are recordings of the lab with every class of events on, each call with identities of its own, cut as a busy socket gives
them. Beside it, in the same run on the same bytes: panoramisk, pyst2, cacofonisk over panoramisk, and the floor: splitting the bytes.
Every reader is given what it needs to have an event's name and its Uniqueid read; none is given a thread or a loop.
"""

from __future__ import annotations

import gc
import io
import logging
import re
import statistics
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.call_model import GOLDEN, NAMES, VIEW
from daemon.ami.session import Session
from daemon.ami.wire import Frame, FrameReader
from daemon.calls.correlator import Correlator

CHUNK_BYTES = 16 * 1024
CALLS = 270
_IDENTITY = re.compile(rb"((?:Uniqueid|Linkedid): )(?=[^\r])")
_LOGIN = b"Asterisk Call Manager/11.0.0\r\n", b"Response: Error\r\nActionID: b-1\r\n\r\n", b"Response: Success\r\nActionID: b-2\r\n\r\n"

NOISE_NAMES = frozenset(
    raw[7 : raw.index(b"\r\n")] for name in NAMES for raw in (GOLDEN / name / "asterisk-22.ami").read_bytes().split(b"\r\n\r\n") if raw.startswith(b"Event: ")
)

Read = Callable[[list[bytes]], int]  # gives how many events it was handed


@dataclass(frozen=True)
class Spread:
    """Events per second: median, lowest and highest of the runs."""

    median: float
    lowest: float
    highest: float


def corpus() -> list[bytes]:
    """The chunks of CALLS recorded calls, one after the other."""
    recorded = [(GOLDEN / name / "asterisk-22.ami").read_bytes() for name in NAMES]
    stream = b"".join(_IDENTITY.sub(rb"\g<1>%d-" % n, recorded[n % len(recorded)]) for n in range(CALLS))
    return [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]


def events_in(chunks: list[bytes]) -> int:
    """How many events the corpus has."""
    return b"".join(chunks).count(b"\r\nPrivilege: ")


def measure(readers: dict[str, Callable[[], Read]], runs: int = 7) -> dict[str, Spread]:
    """Events per second of every reader; the runs of all are interleaved, so that what else the machine does meets all alike."""
    chunks = corpus()
    total = events_in(chunks)
    found: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(runs):
        for name, make in readers.items():
            read = make()
            gc.collect()
            started = time.process_time()
            read(chunks)
            found[name].append(total / (time.process_time() - started))
    return {name: Spread(statistics.median(rates), min(rates), max(rates)) for name, rates in found.items()}


def ingest() -> dict[str, Callable[[], Read]]:
    """Bytes to events, all of them asked for."""
    return {"floor: split": lambda: _split, "vochid": _vochid, "panoramisk": _panoramisk, "pyst2": _pyst2}


def skipping() -> dict[str, Callable[[], Read]]:
    """The same bytes, were all their events of names that nobody here has a use for."""
    return {"floor: split": lambda: _split, "vochid": lambda: _skip}


def finished_calls() -> dict[str, Callable[[], Read]]:
    """Bytes to finished calls."""
    readers: dict[str, Callable[[], Read]] = {"vochid": lambda: _with_calls([])}
    try:
        import cacofonisk  # type: ignore[import-untyped,unused-ignore]  # noqa: F401
    except ImportError:
        return readers
    return {**readers, "cacofonisk": _cacofonisk}


def calls_told() -> int:
    """How many calls vochid's reader finishes: all of them, or the figures mean nothing."""
    ended: list[str] = []
    _with_calls(ended)(corpus())
    return len(set(ended))


def _split(chunks: list[bytes]) -> int:
    rest, seen = b"", 0
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\r\n\r\n")
        seen += len(whole)
    return seen


def _skip(chunks: list[bytes]) -> int:
    """Through the reader alone: what is left out on its first bytes goes no further."""
    reader = FrameReader(NOISE_NAMES)
    return sum(len(reader.feed(chunk)) for chunk in chunks)


def _session() -> Session:
    session = Session("bench", "bench", "b", 0.0)
    for said in _LOGIN:
        session.receive(said, 0.0)
    return session


def _vochid() -> Read:
    session = _session()

    def read(chunks: list[bytes]) -> int:
        seen = 0
        for chunk in chunks:
            for output in session.receive(chunk, 0.0):
                if isinstance(output, Frame) and output.event:
                    output.get("Uniqueid")
                    seen += 1
        return seen

    return read


def _with_calls(ended: list[str]) -> Read:
    session, model = _session(), Correlator(VIEW)

    def read(chunks: list[bytes]) -> int:
        at, seen = 1_000_000.0, 0
        for chunk in chunks:
            for output in session.receive(chunk, at):
                if isinstance(output, Frame):
                    at += 0.001
                    seen += 1
                    for change in model.feed(output, at):
                        if change.call.ended_at is not None:
                            ended.append(change.call.id)
        return seen

    return read


def _panoramisk(patterns: tuple[str, ...] = ("*",), take: Callable[[Any], None] | None = None) -> Read:
    from panoramisk import Manager
    from panoramisk.ami_protocol import AMIProtocol

    logging.getLogger("panoramisk").setLevel(logging.CRITICAL)
    manager, seen = Manager(log=logging.getLogger("panoramisk")), 0

    def heard(_: object, event: Any) -> None:
        nonlocal seen
        seen += 1
        (take or _look)(event)

    for pattern in patterns:
        manager.register_event(pattern, heard)
    protocol = AMIProtocol()
    protocol.connection_made(None)
    protocol.queue, protocol.factory, protocol.encoding, protocol.log = deque(), manager, "utf8", manager.log  # as its Manager does

    def read(chunks: list[bytes]) -> int:
        for chunk in chunks:
            protocol.data_received(chunk)
        return seen

    return read


def _look(event: Any) -> None:
    event.get("Uniqueid")


def _cacofonisk() -> Read:
    from cacofonisk import BaseReporter, EventHandler

    logging.getLogger("cacofonisk").setLevel(logging.CRITICAL)
    handler = EventHandler(reporter=BaseReporter())
    return _panoramisk(tuple(handler.event_handlers()), handler.on_event)  # as its AmiRunner does


def _pyst2() -> Read:
    """Its reader and its messages, without its threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from asterisk.manager import Event, Manager, ManagerMsg

        manager = Manager()
    manager.title = "Asterisk Call Manager"
    over = threading.Thread()
    over.start()
    manager.message_thread = manager.event_dispatch_thread = over  # its destructor joins its threads, which were never started

    def read(chunks: list[bytes]) -> int:
        manager._sock = io.BytesIO(b"".join(chunks))
        manager._running.set()
        manager._connected.set()
        manager._receive_data()
        seen = 0
        while not manager._message_queue.empty():
            lines = manager._message_queue.get()
            if lines:
                message = ManagerMsg(lines)
                if message.has_header("Event"):
                    Event(message).headers.get("Uniqueid")
                    seen += 1
        return seen

    return read
