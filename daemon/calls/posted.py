"""Calls as PBXs post them that have no link: four kinds of event, each a change of one record. Pure.

Less is seen this way than over AMI: no legs, and of a call that nobody answered only whether somebody's phone rang.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from daemon.calls.rules import call_id
from daemon.calls.view import PbxView
from daemon.errors import VochidError
from daemon.model.call import Call, Direction, Result
from daemon.model.phone import to_e164
from daemon.model.signal import Answered, CallChange, Ended, RecordingAdded, Ringing, Signal, StoppedRinging

MAX_TEXT = 255
MAX_UNIQUEID = 150
MAX_EXTENSIONS = 100
ANSWERED = "2"
_DIRECTIONS = {"0": Direction.IN, "1": Direction.OUT, "2": Direction.INTERNAL}
_EXTENSION = re.compile(r"[0-9*#]{1,16}", re.ASCII)
_RECORDING = ("RecordingFile", "Recording", "FileName", "File", "RecordUrl")


class PostedKind(StrEnum):
    """What happened."""

    DIAL = "dial"
    BRIDGE = "bridge"
    HANGUP = "hangup"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class Posted:
    """One event, read. Times are Unix seconds; what the PBX did not send is None or empty."""

    kind: PostedKind
    uniqueid: str
    phone: str | None = None
    extensions: tuple[str, ...] = ()
    trunk: str | None = None
    direction: Direction | None = None
    is_answered: bool | None = None
    started_at: float | None = None
    ended_at: float | None = None
    parties: tuple[str, ...] = ()
    recording: str | None = None


# -- reading ---------------------------------------------------------------------------------------------------------------


def read_posted(body: Any, timezone: str) -> Posted:
    """The event in a request's body; times are in the enterprise's zone. Raises VochidError naming the field."""
    payload = body.get("payload") if isinstance(body, Mapping) else None
    if not isinstance(payload, Mapping):
        raise _bad("payload", "is an object with the event's fields")
    try:
        kind = PostedKind(body.get("event_type"))
    except ValueError:
        raise _bad("event_type", f"is one of {', '.join(PostedKind)}") from None
    uniqueid = _text(payload, "UniqueId")
    if not uniqueid or len(uniqueid) > MAX_UNIQUEID:
        raise _bad("payload.UniqueId", f"is needed, at most {MAX_UNIQUEID} characters")
    status, call_type = _text(payload, "CallStatus"), _text(payload, "CallType")
    if call_type is not None and call_type not in _DIRECTIONS:
        raise _bad("payload.CallType", "is 0 (in), 1 (out) or 2 (internal)")
    return Posted(
        kind=kind,
        uniqueid=uniqueid,
        phone=_text(payload, "Phone"),
        extensions=_extensions(payload.get("Extensions")),
        trunk=_text(payload, "Trunk"),
        direction=_DIRECTIONS[call_type] if call_type is not None else None,
        is_answered=None if status is None else status == ANSWERED,
        started_at=_time(payload, "StartTime", timezone),
        ended_at=_time(payload, "EndTime", timezone),
        parties=tuple(filter(None, (_text(payload, "CallerIDNum"), _text(payload, "ConnectedLineNum")))),
        recording=next((name for key in _RECORDING if (name := _text(payload, key))), None),
    )


def _bad(field: str, what: str) -> VochidError:
    return VochidError(f"{field} {what}", code="bad_event", field=field)


def _text(payload: Mapping[str, Any], name: str) -> str | None:
    value = payload.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        value = str(value)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise _bad(f"payload.{name}", f"is text of at most {MAX_TEXT} characters")
    return value.strip() or None


def _extensions(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_EXTENSIONS:
        raise _bad("payload.Extensions", f"is a list of at most {MAX_EXTENSIONS} extensions")
    texts = [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value]
    if not all(isinstance(text, str) and (not text or _EXTENSION.fullmatch(text)) for text in texts):
        raise _bad("payload.Extensions", "is a list of extensions: digits, * and #")
    return tuple(dict.fromkeys(text for text in texts if text))


def _time(payload: Mapping[str, Any], name: str, timezone: str) -> float | None:
    text = _text(payload, name)
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZoneInfo(timezone)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise _bad(f"payload.{name}", "is a time like 2026-11-21 08:00:00") from None


# -- what it changes ---------------------------------------------------------------------------------------------------------


def posted_id(view: PbxView, uniqueid: str) -> str:
    """The id of a posted call: the same for the same UniqueId of the same PBX."""
    return call_id(view, f"posted {uniqueid}")


def apply(event: Posted, prior: Call | None, view: PbxView, at: float) -> CallChange | None:
    """The change that an event makes of the record stored so far, or None. `at`: Unix time of its arrival."""
    if prior is not None and prior.ended_at is not None:
        return _with_recording(event, prior, at)
    match event.kind:
        case PostedKind.DIAL:
            return _dial(event, prior, view, at)
        case PostedKind.BRIDGE:
            return _bridge(event, prior, view, at)
        case PostedKind.HANGUP | PostedKind.DOWNLOAD:
            return _end(event, prior, view, at)


def _with_recording(event: Posted, prior: Call, at: float) -> CallChange | None:
    """After the end nothing changes any more but the recording's name."""
    if event.recording is None or event.recording in prior.recordings or event.kind not in (PostedKind.HANGUP, PostedKind.DOWNLOAD):
        return None
    return CallChange(replace(prior, recordings=(*prior.recordings, event.recording)), (RecordingAdded(event.recording),), at)


def _filled(event: Posted, prior: Call | None, view: PbxView, at: float) -> Call:
    """The record with everything that this event adds to what was known."""
    call = prior or Call(
        id=posted_id(view, event.uniqueid),
        enterprise=view.enterprise,
        pbx=view.pbx,
        linkedid=event.uniqueid,
        direction=event.direction or _direction(event, view),
        started_at=event.started_at if event.started_at is not None else at,
    )
    extensions = event.extensions or tuple(party for party in event.parties if view.is_extension(party))
    phone = event.phone or next((party for party in event.parties if not view.is_extension(party)), None)
    if call.direction is Direction.INTERNAL:
        initiator, called = call.initiator or next(iter(extensions), None), next(iter(extensions[1:]), phone)
        return replace(call, initiator=initiator, customer_number=call.customer_number or called)
    call = replace(call, customer_number=call.customer_number or view.number(phone), line=call.line or _line(event.trunk, view))
    if call.direction is Direction.OUT:
        return replace(call, initiator=call.initiator or next(iter(extensions), None))
    return replace(call, rang=tuple(dict.fromkeys(call.rang + event.extensions)))


def _direction(event: Posted, view: PbxView) -> Direction:
    """Without a CallType: from who speaks with whom."""
    inside = [view.is_extension(party) for party in event.parties]
    if len(inside) == 2 and all(inside):
        return Direction.INTERNAL
    return Direction.OUT if inside[:1] == [True] else Direction.IN


def _line(trunk: str | None, view: PbxView) -> str | None:
    return view.known_line(trunk) or (to_e164(trunk, view.country) if trunk else None)


def _dial(event: Posted, prior: Call | None, view: PbxView, at: float) -> CallChange | None:
    call = _filled(event, prior, view, at)
    if call == prior:
        return None
    known = prior.rang if prior is not None else ()
    fresh = tuple(number for number in call.rang if number not in known)
    if call.direction is Direction.OUT:
        fresh = (call.initiator,) if call.initiator and (prior is None or prior.initiator is None) else ()
    is_over = call.direction is Direction.INTERNAL or call.answered_at is not None
    return CallChange(call, (Ringing(fresh),) if fresh and not is_over else (), at)


def _bridge(event: Posted, prior: Call | None, view: PbxView, at: float) -> CallChange | None:
    call = _filled(event, prior, view, at)
    if call.answered_at is not None:
        return None
    by = next((party for party in event.parties if view.is_extension(party)), None) if call.direction is Direction.IN else call.initiator
    signals: list[Signal] = [Answered(by)]
    if lost := tuple(number for number in call.rang if number != by):
        signals.append(StoppedRinging(lost))
    return CallChange(replace(call, answered_at=at, answered_by=by, last_talked=by), tuple(signals), at)


def _end(event: Posted, prior: Call | None, view: PbxView, at: float) -> CallChange:
    call = _filled(event, prior, view, at)
    started_at = event.started_at if event.started_at is not None else call.started_at
    ended_at = max(started_at, event.ended_at if event.ended_at is not None else at)
    is_answered = bool(event.is_answered) or call.answered_at is not None
    if is_answered:
        answered_at = min(max(call.answered_at if call.answered_at is not None else started_at, started_at), ended_at)
        only = call.rang[0] if len(call.rang) == 1 else None
        by = call.answered_by or (call.initiator if call.direction is not Direction.IN else only)
        call = replace(call, answered_at=answered_at, answered_by=by, last_talked=call.last_talked or by, talk_seconds=ended_at - answered_at)
    recordings = (*call.recordings, event.recording) if event.recording and event.recording not in call.recordings else call.recordings
    result = Result.ANSWERED if is_answered else Result.NO_ANSWER if call.rang or call.direction is not Direction.IN else Result.CANCELLED
    call = replace(call, started_at=started_at, ended_at=ended_at, result=result, recordings=recordings, gap=prior is None)
    return CallChange(call, (Ended(open_popups(prior)),), at)


def open_popups(prior: Call | None) -> tuple[str, ...]:
    """Whose popup this end closes; where the beginning was not posted there is none."""
    if prior is None or prior.direction is Direction.INTERNAL:
        return ()
    if prior.direction is Direction.OUT:
        return (prior.initiator,) if prior.initiator else ()
    return tuple(filter(None, (prior.answered_by,))) if prior.answered_at is not None else prior.rang
