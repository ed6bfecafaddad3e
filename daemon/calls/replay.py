"""Recorded AMI streams back into events with their times. Pure.

TRACE is raw AMI bytes with an optional sidecar of chunk times, or a JSON array / JSON Lines of event objects.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from daemon.ami.wire import Frame, FrameReader
from daemon.calls.correlator import Correlator, Event
from daemon.calls.view import PbxView
from daemon.model.call import Call


class TraceError(ValueError):
    """The file is no trace; says where."""


class JsonEvent:
    """An event from JSON: header names case-insensitive, a list gives its first value."""

    def __init__(self, headers: dict[str, Any]) -> None:
        self._headers = {str(key).lower(): value for key, value in headers.items()}
        self.event = self.get("event") or ""

    def get(self, header: str, /) -> str | None:
        value = self._headers.get(header.lower())
        if isinstance(value, list):
            value = value[0] if value else None
        return None if value is None else str(value)


def read_trace(name: str, data: bytes, sidecar: bytes | None) -> Iterator[tuple[Event, float]]:
    """The events of a trace with their Unix times. `name` decides the format by its ending. Raises TraceError."""
    if name.endswith((".json", ".jsonl")):
        yield from _json_events(data)
    else:
        yield from _ami_events(data, sidecar)


def _json_events(data: bytes) -> Iterator[tuple[Event, float]]:
    try:
        text = data.decode()
        is_array = text.lstrip().startswith("[")
        objects = json.loads(text) if is_array else [json.loads(line) for line in text.splitlines() if line.strip()]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TraceError(f"not JSON: {error}") from error
    at = 0.0
    for number, headers in enumerate(objects, 1):
        if not isinstance(headers, dict):
            raise TraceError(f"event {number} is not an object")
        event = JsonEvent(headers)
        at = _timestamp(event, at)
        yield event, at


def _ami_events(data: bytes, sidecar: bytes | None) -> Iterator[tuple[Event, float]]:
    offsets, times = _chunk_times(sidecar)
    reader = FrameReader()
    at, offset = 0.0, 0
    for end in [*offsets[1:], len(data)] if offsets else [len(data)]:
        for frame in reader.feed(data[offset:end]):
            if not isinstance(frame, Frame):
                continue
            at = times[max(0, bisect_right(offsets, offset) - 1)] if offsets else _timestamp(frame, at)
            if frame.event:
                yield frame, at
        offset = end
    for frame in reader.feed(b"\r\n\r\n"):
        if isinstance(frame, Frame) and frame.event:
            yield frame, at


def _chunk_times(sidecar: bytes | None) -> tuple[list[int], list[float]]:
    if sidecar is None:
        return [], []
    try:
        chunks = json.loads(sidecar)["chunks"]
        return [int(offset) for offset, _ in chunks], [float(at) for _, at in chunks]
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError('the sidecar is not {"chunks": [[offset_bytes, unix_time_s], …]}') from error


def _timestamp(event: Event, otherwise: float) -> float:
    try:
        return float(event.get("Timestamp") or otherwise)
    except ValueError:
        return otherwise


def replay(events: Iterator[tuple[Event, float]], view: PbxView) -> list[Call]:
    """Every call of a trace as it stands at its end, by started_at."""
    model, calls, at = Correlator(view), {}, 0.0
    for event, at in events:
        for change in model.feed(event, at):
            calls[change.call.id] = change.call
    for change in model.tick(at + 60):
        calls[change.call.id] = change.call
    return sorted(calls.values(), key=lambda call: (call.started_at, call.id))
