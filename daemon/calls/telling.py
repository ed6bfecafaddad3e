"""What is told of a conversation, and when: its record when that changes, and whose popup opens and closes. Pure."""

from __future__ import annotations

from daemon.calls.graph import Group
from daemon.calls.parties import IN, OUT
from daemon.calls.rules import Judgement, Outline, outlined
from daemon.model.call import Call
from daemon.model.signal import Answered, CallChange, Ended, Ringing, Signal, StoppedRinging


class _Told:
    """What was said of a group so far: its last record, whose popup is open, and that it was answered.

    in_talk: who talked already when the call was first seen: too late for a popup.
    """

    def __init__(self, record: Outline | None, in_talk: str | None = None, popups: tuple[str, ...] = (), *, answered: bool = False) -> None:
        self.record = record
        self.in_talk = in_talk
        self.popups = popups
        self.answered = answered


class Teller:
    """Remembers what was told of every open conversation, so that nothing is told twice and every popup closes."""

    def __init__(self) -> None:
        self._told: dict[Group, _Told] = {}

    def __len__(self) -> int:
        return len(self._told)

    def knows(self, group: Group) -> bool:
        """Whether anything was told of the group."""
        return group in self._told

    def take_over(self, group: Group, prior: Call) -> None:
        """A former process told this much of the group."""
        popups = prior.rang if prior.direction is IN else tuple(filter(None, [prior.initiator]))
        self._told[group] = _Told(outlined(prior), popups=popups, answered=prior.answered_at is not None)

    def tell(self, group: Group, judgement: Judgement, at: float) -> CallChange | None:
        """The change since the last time, or None when there is none that anybody would notice."""
        record = judgement.outline()
        told = self._told.get(group)
        if told is None:
            told = self._told[group] = _Told(None, judgement.talking_now() if group.has_gap else None)
        signals = _signals(told, judgement, record)
        if not signals and record == told.record:
            return None
        told.record = record
        return CallChange(judgement.whole(record), tuple(signals), at)

    def forget(self, group: Group) -> tuple[str, ...] | None:
        """Ends the memory of a group; gives the popups still open, or None when it was never told of."""
        told = self._told.pop(group, None)
        return None if told is None else told.popups


def _signals(told: _Told, judgement: Judgement, record: Outline) -> list[Signal]:
    signals: list[Signal] = []
    ringing = _ringing(judgement, record)
    if fresh := [number for number in ringing if number not in told.popups and number != told.in_talk]:
        signals.append(Ringing(tuple(fresh)))
        told.popups += tuple(fresh)
    if record.answered_at is not None and not told.answered:
        told.answered = True
        signals.append(Answered(record.answered_by))
    if record.ended_at is not None:
        signals.append(Ended(told.popups))
        told.popups = ()
    elif told.popups and (judgement.direction is not OUT or told.answered):
        stays = [*ringing, record.last_talked, *judgement.up_now()]
        if gone := [number for number in told.popups if number not in stays]:
            signals.append(StoppedRinging(tuple(gone)))
            told.popups = tuple([number for number in told.popups if number in stays])
    return signals


def _ringing(judgement: Judgement, record: Outline) -> list[str]:
    """Who is to see a popup now: phones that ring, and who came to the call without ringing for it (a transfer after a
    consultation, a pickup, a parked call fetched); for an outgoing call its initiator, once the customer's side is dialled.
    """
    if judgement.direction is OUT and record.answered_at is None:
        is_dialled = record.initiator and any(channel.dialled for channel in judgement.parties.externals)
        return [record.initiator] if record.initiator and is_dialled else []
    now = judgement.ringing_now()
    if judgement.direction is OUT and record.initiator in now:
        now.remove(record.initiator)
    talking = judgement.talking_now()
    if talking and talking not in now:
        now.append(talking)
    return now
