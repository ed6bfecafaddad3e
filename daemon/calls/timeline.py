"""A call's story in time order: what the PBX said, what the model made of it, what CRMs were told and answered, and why not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.ami.wire import Frame, FrameReader
from daemon.model.call import iso

_DULL = frozenset({"event", "privilege", "priority", "language", "accountcode", "chanvariable"})


@dataclass(frozen=True, slots=True)
class CrmSide:
    """How an integration stands to a call: `reason` says why it is told nothing, when it is so."""

    name: str
    enabled: bool
    mode: str
    send: Mapping[str, bool]


def stamped(raw: bytes, chunks: Sequence[tuple[int, float]]) -> bytes:
    """The frames with their times as `Timestamp` headers, as Asterisk's own timestampevents does: a TRACE that needs no sidecar."""
    return b"".join(
        (frame.raw if frame.get("Timestamp") else frame.raw.replace(b"\r\n", b"\r\nTimestamp: %.6f\r\n" % at, 1)) + b"\r\n\r\n"
        for frame, at in _frames(raw, chunks)
    )


def _frames(raw: bytes, chunks: Sequence[tuple[int, float]]) -> Iterable[tuple[Frame, float]]:
    """A stored trace has a chunk per frame; a call that lives, or came from CDR, has neither."""
    ends = [*(offset for offset, _ in chunks[1:]), len(raw)][: len(chunks)]
    for (offset, at), end in zip(chunks, ends, strict=True):
        for frame in FrameReader().feed(raw[offset:end]):
            if isinstance(frame, Frame):
                yield frame, at


def timeline(
    call: Mapping[str, Any],
    raw: bytes,
    chunks: Sequence[tuple[int, float]],
    changes: Iterable[Mapping[str, Any]],
    deliveries: Sequence[Mapping[str, Any]],
    logs: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Items {at, kind, what, detail}, kinds event, change, delivery and answer, by time."""
    items = [{"at": iso(at), "kind": "event", "what": frame.event, "detail": _headers(frame)} for frame, at in _frames(raw, chunks)]
    items += [{"at": c["at"], "kind": "change", "what": ", ".join(c["signals"]) or "changed", "detail": c["record"]} for c in changes]
    items += [
        {"at": d["created_at"], "kind": "delivery", "what": f"{d['integration']} {d['kind']}: {d['state']}", "detail": dict(d)}
        for d in deliveries
    ]  # fmt: skip
    items += [{"at": log["at"], "kind": "answer", "what": f"{log['integration']} {log['kind']}: {log['status']}", "detail": dict(log)} for log in logs]
    order = {"event": 0, "change": 1, "delivery": 2, "answer": 3}
    return sorted(items, key=lambda item: (item["at"], order[item["kind"]]))


def _headers(frame: Frame) -> dict[str, str]:
    return {key: value for key, value in frame.items() if key not in _DULL and value and value != "<unknown>"}


def why_not(call: Mapping[str, Any], deliveries: Sequence[Mapping[str, Any]], sides: Sequence[CrmSide], *, paused: bool) -> list[str]:
    """Why CRMs were not told, or not all of it: a sentence each."""
    found = []
    if paused:
        found.append("The enterprise is paused: CRMs are told nothing.")
    if not sides:
        found.append("No CRM is set up for this enterprise.")
    if call["direction"] == "internal":
        found.append("Internal calls are stored and never told to CRMs.")
    if call["ended_at"] is None:
        found.append("The call is not over: its journal entry comes at its end.")
    if call["customer_number"] is None:
        found.append("The number was withheld: there is nobody to show a popup for.")
    for side in sides:
        found += [f"{side.name}: {reason}" for reason in _reasons(side, call, [d for d in deliveries if d["integration"] == side.name])]
    return found


def _reasons(side: CrmSide, call: Mapping[str, Any], told: Sequence[Mapping[str, Any]]) -> list[str]:
    if not side.enabled:
        return ["switched off (enabled is false)."]
    found = []
    if side.mode == "observe":
        found.append("in mode observe: everything is computed, nothing is sent.")
    off = [name for name, is_on in side.send.items() if not is_on]
    if off:
        found.append(f"send is off for {', '.join(off)}.")
    for delivery in told:
        if delivery["state"] in ("waiting", "sending", "dead", "discarded", "dropped"):
            found.append(f"{delivery['kind']} {delivery['id']} is {delivery['state']}{': ' + delivery['last_error'] if delivery['last_error'] else ''}.")
    if not told and call["direction"] != "internal":
        found.append("nothing was planned: it was set up after the call, or its settings want nothing of it.")
    elif call["direction"] != "internal" and call["ended_at"] and not any(d["kind"] == "journal" for d in told) and side.send.get("journal", True):
        found.append("no journal entry was planned.")
    return found
