"""What the PBX said, sorted by call, until the call is over and its trace can be put away. Pure.

The feed only appends to `inbox`; sorting happens on the clock's ticks, off the way of a call. Everything is bounded: a call keeps
its first MAX_CALL_EVENTS events, a PBX MAX_PBX_BYTES (the stillest are forgotten first), and what was left out is counted.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.ami.masking import Masker
from daemon.ami.wire import Frame
from daemon.model.call import Call, iso
from daemon.model.signal import CallChange

MAX_INBOX = 20_000
MAX_CALL_EVENTS = 2_000
MAX_CALL_CHANGES = 300
MAX_PBX_BYTES = 16 * 1024 * 1024
RIPE_AFTER_S = 2.0  # after the end: the last hangups and what the PBX says after them
LEVEL = 1  # AMI repeats itself so much that more brings little
FORGET_AFTER_S = 30.0  # another call may share what was said (a consultation that merged)

_LINKEDID = b"inkedid: "  # Linkedid, DestLinkedid, LocalOneLinkedid, …: whichever stands first
_INTRODUCING = frozenset({"Newchannel", "BridgeEnter", "LocalBridge", "DialBegin", "Rename"})
_NAMES = ("Uniqueid", "DestUniqueid", "BridgeUniqueid", "Channel", "DestChannel", "LocalOneUniqueid", "LocalTwoUniqueid", "Newname")
_BARE = ("Uniqueid", "BridgeUniqueid", "ToBridgeUniqueid", "FromBridgeUniqueid")  # where an event without a Linkedid belongs


@dataclass(frozen=True, slots=True)
class Trace:
    """A call's story, all zlib: TRACE bytes, the JSON of their chunks, the JSON of what the model said of it, in order."""

    call_id: str
    at: float
    events: int
    left_out: int
    masked: bool
    raw: bytes
    chunks: bytes
    changes: bytes


@dataclass(slots=True)
class _Bucket:
    """What was said under one Linkedid."""

    events: list[tuple[int, float, bytes]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    size: int = 0
    left_out: int = 0
    forget_at: float | None = None


@dataclass(frozen=True, slots=True)
class Ripe:
    """A call whose trace is complete and waits to be packed (which costs, and may be done elsewhere)."""

    call: Call
    at: float
    events: list[tuple[int, float, bytes]]
    left_out: int
    changes: list[CallChange]


class Tracer:
    """One per PBX."""

    def __init__(self) -> None:
        self.inbox: deque[tuple[Frame, float]] = deque(maxlen=MAX_INBOX)
        self._buckets: dict[str, _Bucket] = {}  # in order of use, the stillest first
        self._homes: dict[str, str] = {}  # Uniqueid, channel or bridge -> Linkedid
        self._changes: dict[str, list[CallChange]] = {}
        self._ended: list[CallChange] = []
        self._size = 0
        self._count = 0

    @property
    def size_bytes(self) -> int:
        return self._size

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sorted, put away or forgotten."""
        return not (self.inbox or self._buckets or self._changes or self._ended)

    def changed(self, changes: Iterable[CallChange]) -> None:
        """The model said this."""
        for change in changes:
            said = self._changes.setdefault(change.call.id, [])
            if len(said) < MAX_CALL_CHANGES:
                said.append(change)
            if change.call.ended_at is not None:
                self._ended.append(change)

    def ripe(self, now: float, *, all_ended: bool = False) -> list[Ripe]:
        """Sorts what came; gives the calls that ended RIPE_AFTER_S ago, or all that ended."""
        while self.inbox:
            self._sort_in(*self.inbox.popleft())
        due = [change for change in self._ended if all_ended or change.at <= now - RIPE_AFTER_S]
        if due:
            self._ended = [change for change in self._ended if change not in due]
        found = [self._collect(change, now) for change in due]
        self._forget(now)
        return found

    def _sort_in(self, frame: Frame, at: float) -> None:
        """Every event passes here: it looks at bytes, and at headers only where names are introduced."""
        raw = frame.raw
        start = raw.find(_LINKEDID)
        if start >= 0:
            end = raw.find(b"\r\n", start)
            linkedid = raw[start + len(_LINKEDID) : end if end >= 0 else len(raw)].decode("utf-8", "replace")
        else:
            linkedid = next((home for header in _BARE if (name := frame.get(header)) and (home := self._homes.get(name))), "")
        if not linkedid:
            return
        bucket = self._buckets.pop(linkedid, None)
        if bucket is None or frame.event in _INTRODUCING:
            bucket = bucket or _Bucket()
            for name in (value for header in _NAMES if (value := frame.get(header))):
                self._homes.setdefault(name, linkedid)
                bucket.names.add(name)
        self._buckets[linkedid] = bucket
        if len(bucket.events) >= MAX_CALL_EVENTS:
            bucket.left_out += 1
            return
        self._count += 1
        bucket.events.append((self._count, at, raw))
        bucket.size += len(raw)
        self._size += len(raw)

    def _collect(self, change: CallChange, now: float) -> Ripe:
        call = change.call
        linkedids = {call.linkedid, *(self._homes[leg.channel] for leg in call.legs if leg.channel in self._homes)}
        buckets = [bucket for linkedid in linkedids if (bucket := self._buckets.get(linkedid)) is not None]
        for bucket in buckets:
            bucket.forget_at = now + FORGET_AFTER_S
        events = sorted(event for bucket in buckets for event in bucket.events)
        return Ripe(call, change.at, events, sum(bucket.left_out for bucket in buckets), self._changes.pop(call.id, [change]))

    def _forget(self, now: float) -> None:
        for linkedid in [key for key, bucket in self._buckets.items() if bucket.forget_at is not None and bucket.forget_at <= now]:
            self._drop(linkedid)
        while self._size > MAX_PBX_BYTES:
            self._drop(next(iter(self._buckets)))

    def _drop(self, linkedid: str) -> None:
        bucket = self._buckets.pop(linkedid)
        self._size -= bucket.size
        for name in bucket.names:
            if self._homes.get(name) == linkedid:
                del self._homes[name]


def pack(ripe: Ripe, masker: Masker | None) -> Trace:
    """Compressed, and masked if wished. AMI text shrinks to a tenth."""
    raw, chunks, offset = [], [], 0
    for _, at, data in ripe.events:
        part = (masker.mask(data) if masker else data) + b"\r\n\r\n"
        chunks.append([offset, round(at, 6)])  # finer than the record, so that a replay rounds to the same milliseconds
        raw.append(part)
        offset += len(part)
    changes = json.dumps(told(ripe.changes), ensure_ascii=False, separators=(",", ":")).encode()
    return Trace(
        ripe.call.id, ripe.at, len(ripe.events), ripe.left_out, masker is not None, zlib.compress(b"".join(raw), LEVEL),
        zlib.compress(json.dumps(chunks).encode(), LEVEL), zlib.compress(masker.mask(changes) if masker else changes, LEVEL),
    )  # fmt: skip


def told(changes: Sequence[CallChange]) -> list[dict[str, Any]]:
    """What the model said, change by change: the signals, and the fields that became different."""
    found: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    for change in changes:
        record = {key: value for key, value in change.call.to_json().items() if key not in ("legs", "id", "enterprise")}
        news = {key: value for key, value in record.items() if before.get(key) != value}
        found.append({"at": iso(change.at), "signals": [_signal(signal) for signal in change.signals], "record": news})
        before = record
    return found


def _signal(signal: Any) -> str:
    people = getattr(signal, "extensions", None) or tuple(filter(None, [getattr(signal, "by", None)]))
    return f"{type(signal).__name__} {', '.join(people)}".strip()
