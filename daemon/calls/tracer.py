"""What the PBX said, sorted by call and put away in parts while the call runs: a process that is killed takes only the last moments with it. Pure.

The feed only appends to `inbox`; sorting happens on the clock's ticks, off the way of a call. Everything is bounded: a Linkedid keeps
its first MAX_CALL_EVENTS events, a PBX MAX_PBX_BYTES (the stillest are forgotten first), and what was left out is counted. Events stay
here after they were put away, for a call that is joined with another later wants its story too.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
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
    """A part of a call's story, all zlib: TRACE bytes, the JSON of their chunks [offset, at, number], the JSON of what the model said of it.

    The numbers grow over all parts of a call, whichever process kept them: they say in which order the events belong.
    """

    call_id: str
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
    readers: set[str] = field(default_factory=set)  # the calls whose story it belongs to
    size: int = 0
    left_out: int = 0
    forget_at: float | None = None


@dataclass(slots=True)
class _Story:
    """A call that is not over, or was not put away as a whole."""

    call: Call
    told: Call | None = None  # as the last part left it
    changes: list[CallChange] = field(default_factory=list)  # since then
    said: int = 0
    given: dict[str, tuple[int, int]] = field(default_factory=dict)  # of each Linkedid: the last event's number, how many were left out
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What came of a call since its last part. It waits to be packed, which costs and may be done elsewhere."""

    call: Call
    events: list[tuple[int, float, bytes]]
    left_out: int
    changes: list[CallChange]
    before: Call | None


class Tracer:
    """One per PBX."""

    def __init__(self) -> None:
        self.inbox: deque[tuple[Frame, float]] = deque(maxlen=MAX_INBOX)
        self._buckets: dict[str, _Bucket] = {}  # in order of use, the stillest first
        self._homes: dict[str, str] = {}  # Uniqueid, channel or bridge -> Linkedid
        self._stories: dict[str, _Story] = {}
        self._due: dict[str, None] = {}  # calls of which something new was said, in order
        self._size = 0
        self._count = 0

    @property
    def size_bytes(self) -> int:
        return self._size

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sorted, put away or forgotten."""
        return not (self.inbox or self._buckets or self._due)

    def changed(self, changes: Iterable[CallChange]) -> None:
        """The model said this."""
        for change in changes:
            story = self._stories.setdefault(change.call.id, _Story(change.call))
            story.call = change.call
            self._due[change.call.id] = None
            if change.call.ended_at is not None:
                story.ended_at = change.at
            if story.said < MAX_CALL_CHANGES:
                story.said += 1
                story.changes.append(change)

    def sort(self, most: int) -> bool:
        """Sorts so many events that came; gives whether there are more."""
        for _ in range(min(most, len(self.inbox))):
            self._sort_in(*self.inbox.popleft())
        return bool(self.inbox)

    def parts(self, now: float, *, last: bool = False) -> list[Part]:
        """Sorts what came; gives what is new of every call that runs, and of those that ended RIPE_AFTER_S ago (or, with `last`, of all that ended)."""
        self.sort(len(self.inbox))
        found = []
        for call_id in list(self._due):
            story = self._stories[call_id]
            if story.ended_at is not None and story.ended_at > now - RIPE_AFTER_S and not last:
                continue  # soon, in one part with what is still said of it
            del self._due[call_id]
            part = self._part(story, now)
            if part.events or part.changes or part.left_out:
                found.append(part)
            if story.ended_at is not None:
                self._end(call_id, now)
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
        self._due.update(dict.fromkeys(bucket.readers))
        if len(bucket.events) >= MAX_CALL_EVENTS:
            bucket.left_out += 1
            return
        self._count = max(self._count + 1, int(at * 1_000_000))  # so a next process goes on counting where this one ended
        bucket.events.append((self._count, at, raw))
        bucket.size += len(raw)
        self._size += len(raw)

    def _part(self, story: _Story, now: float) -> Part:
        call, events, left_out = story.call, [], 0
        for linkedid in {call.linkedid, *(self._homes[leg.channel] for leg in call.legs if leg.channel in self._homes)}:
            if (bucket := self._buckets.get(linkedid)) is None:
                continue
            number, counted = story.given.get(linkedid, (0, 0))
            events += bucket.events[bisect_right(bucket.events, number, key=lambda event: event[0]) :]
            left_out += max(0, bucket.left_out - counted)
            story.given[linkedid] = (bucket.events[-1][0] if bucket.events else number, bucket.left_out)
            bucket.readers.add(call.id)
        changes, story.changes, before, story.told = story.changes, [], story.told, call
        return Part(call, sorted(events), left_out, changes, before)

    def _end(self, call_id: str, now: float) -> None:
        for linkedid in self._stories.pop(call_id).given:
            if (bucket := self._buckets.get(linkedid)) is not None:
                bucket.readers.discard(call_id)
                bucket.forget_at = now + FORGET_AFTER_S

    def _forget(self, now: float) -> None:
        for linkedid in [key for key, bucket in self._buckets.items() if bucket.forget_at is not None and bucket.forget_at <= now and not bucket.readers]:
            self._drop(linkedid)
        while self._size > MAX_PBX_BYTES:
            self._drop(next(iter(self._buckets)))

    def _drop(self, linkedid: str) -> None:
        bucket = self._buckets.pop(linkedid)
        self._size -= bucket.size
        for name in bucket.names:
            if self._homes.get(name) == linkedid:
                del self._homes[name]


def pack(part: Part, masker: Masker | None) -> Trace:
    """Compressed, and masked if wished. AMI text shrinks to a tenth."""
    raw, chunks, offset = [], [], 0
    for number, at, event in part.events:
        data = (masker.mask(event) if masker else event) + b"\r\n\r\n"
        chunks.append([offset, round(at, 6), number])  # finer than the record, so that a replay rounds to the same milliseconds
        raw.append(data)
        offset += len(data)
    changes = json.dumps(told(part.changes, part.before), ensure_ascii=False, separators=(",", ":")).encode()
    return Trace(
        part.call.id, len(part.events), part.left_out, masker is not None, zlib.compress(b"".join(raw), LEVEL),
        zlib.compress(json.dumps(chunks).encode(), LEVEL), zlib.compress(masker.mask(changes) if masker else changes, LEVEL),
    )  # fmt: skip


def told(changes: Sequence[CallChange], former: Call | None = None) -> list[dict[str, Any]]:
    """What the model said since the call was as `former` has it, change by change: the signals, and the fields that became different."""
    found: list[dict[str, Any]] = []
    before = _record(former) if former is not None else {}
    for change in changes:
        record = _record(change.call)
        news = {key: value for key, value in record.items() if before.get(key) != value}
        found.append({"at": iso(change.at), "signals": [_signal(signal) for signal in change.signals], "record": news})
        before = record
    return found


def _record(call: Call) -> dict[str, Any]:
    return {key: value for key, value in call.to_json().items() if key not in ("legs", "id", "enterprise")}


def _signal(signal: Any) -> str:
    people = getattr(signal, "extensions", None) or tuple(filter(None, [getattr(signal, "by", None)]))
    return f"{type(signal).__name__} {', '.join(people)}".strip()
