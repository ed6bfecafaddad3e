"""Which conversations of the CDR are calls that were seen live, and what is to be done with the others. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from daemon.model.call import Call, Result

SAME_LEG_S = 10.0  # channel names begin again with every boot


def to_store(told: Iterable[Call], seen: Sequence[Call]) -> list[Call]:
    """Calls of the CDR that were not seen at all, and calls of which a part was not, completed."""
    matching = _among(seen)
    found = []
    for call in told:
        known = matching(call)
        if known is None:
            found.append(call)
        elif known.gap and known.ended_at is not None and known.id != call.id and (better := completed(known, call)) != known:
            found.append(better)
    return found


def names_to_add(told: Iterable[Call], seen: Sequence[Call]) -> list[Call]:
    """Calls that were seen whole, each with one more recording that only the CDR names (and those added before it)."""
    matching = _among(seen)
    found = []
    for call in told:
        known = matching(call) if call.recordings else None
        if known is not None and known.ended_at is not None and not known.gap:
            for name in _unknown_names(known, call):
                known = replace(known, recordings=(*known.recordings, name))
                found.append(known)
    return found


def _among(seen: Sequence[Call]) -> Callable[[Call], Call | None]:
    """Finds the call that was seen for one of the CDR."""
    by_linkedid: dict[str, list[Call]] = {}
    by_channel: dict[str, list[Call]] = {}
    for call in seen:
        by_linkedid.setdefault(call.linkedid, []).append(call)
        for leg in call.legs:
            by_channel.setdefault(leg.channel, []).append(call)
    return lambda told: _match(told, by_linkedid, by_channel)


def _match(told: Call, by_linkedid: dict[str, list[Call]], by_channel: dict[str, list[Call]]) -> Call | None:
    for call in by_linkedid.get(told.linkedid, []):
        if _is_near(call, told):
            return call
    for leg in told.legs:
        for call in by_channel.get(leg.channel, []):
            if any(known.channel == leg.channel and abs(known.started_at - leg.started_at) <= SAME_LEG_S for known in call.legs) or _spans(call, told):
                return call
    return None


def _is_near(call: Call, told: Call) -> bool:
    """A Linkedid comes again only after a restart with a clock that was set back."""
    return abs(call.started_at - told.started_at) < 86_400


def _spans(call: Call, told: Call) -> bool:
    """A call taken in while it ran has legs from when it was first seen."""
    return call.gap and call.started_at - SAME_LEG_S <= told.started_at <= (call.ended_at or told.started_at) + SAME_LEG_S


def completed(known: Call, told: Call) -> Call:
    """What CDR knows better of a call that was seen in part: how it ended, who talked and how long. What was seen stays."""
    is_better = known.result in (Result.INTERRUPTED, None) or (known.result is not Result.ANSWERED and told.result is Result.ANSWERED)
    answered_at = known.answered_at if known.answered_at is not None else told.answered_at
    ended_at = told.ended_at if told.ended_at is not None else known.ended_at
    return replace(
        known,
        started_at=min(known.started_at, told.started_at) if abs(known.started_at - told.started_at) > 2 else known.started_at,
        answered_at=answered_at,
        ended_at=ended_at if is_better or _ended_later(known, told) else known.ended_at,
        talk_seconds=told.talk_seconds if told.talk_seconds > known.talk_seconds else known.talk_seconds,
        result=told.result if is_better else known.result,
        customer_number=known.customer_number or told.customer_number,
        customer_name=known.customer_name or told.customer_name,
        line=known.line or told.line,
        answered_by=known.answered_by or told.answered_by,
        last_talked=known.last_talked or told.last_talked,
        initiator=known.initiator or told.initiator,
        rang=known.rang or told.rang,
        queue=known.queue or told.queue,
        recordings=known.recordings + _unknown_names(known, told),
    )


def _unknown_names(known: Call, told: Call) -> tuple[str, ...]:
    """The CDR has a file often without its directory, or as it is called once it was converted: that is the same recording."""
    stems = {_stem(name) for name in known.recordings}
    return tuple(dict.fromkeys(name for name in told.recordings if _stem(name) not in stems))


def _stem(name: str) -> str:
    last = name.rpartition("/")[2]
    return last.rpartition(".")[0] or last


def _ended_later(known: Call, told: Call) -> bool:
    """Its end was not seen: CDR has a later one (whole seconds apart, CDR may cut them)."""
    return told.ended_at is not None and known.ended_at is not None and told.ended_at > known.ended_at + 2
