"""What the facts mean: who was alerted, who talked, how it ended. Pure: facts in, record out. Who is who: parties.py."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace
from operator import itemgetter
from typing import NamedTuple

from daemon.calls.graph import Channel, Dial, Group, Move, Talk
from daemon.calls.parties import IN, OUT, parties_of
from daemon.calls.view import PbxView
from daemon.model.call import Call, Direction, Leg, Result, Transfer

ABANDON_TO_HANGUP_S = 0.5
_NAMESPACE = uuid.UUID("5f1c2e9a-6d55-4c0e-9c59-0b8f3f1f6d10").bytes

# Q.850 causes. DialStatus alone does not tell these apart: a phone's 403 and 404 arrive as NOANSWER.
_BUSY_CAUSES = frozenset({17})
_REJECTED_CAUSES = frozenset({21, 29, 50, 55, 57, 87})
_UNAVAILABLE_CAUSES = frozenset(
    {1, 2, 3, 5, 6, 20, 22, 25, 27, 28, 34, 38, 41, 42, 44, 47, 58, 63, 65, 66, 69, 79, 88, 95, 96, 97, 98, 99, 100, 101, 102, 103, 111}
)


def call_id(view: PbxView, first_uniqueid: str) -> str:
    """A call's id: the same for the same (enterprise, pbx, boot, first uniqueid), on every node and after a restart."""
    name = "\0".join((view.enterprise, view.pbx, view.boot, first_uniqueid)).encode()
    # uuid.uuid5, which takes many times as long: a SHA-1 cut to 128 bits in which the version and the variant are set (RFC 9562, 5.5).
    digits = hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


class Outline(NamedTuple):
    """The record without what changes all the time, its last fields: talk time and legs. Two outlines that are equal tell nobody anything new."""

    id: str
    enterprise: str
    pbx: str
    linkedid: str
    direction: Direction
    started_at: float
    customer_number: str | None
    customer_name: str | None
    line: str | None
    answered_at: float | None
    ended_at: float | None
    result: Result | None
    rang: tuple[str, ...]
    answered_by: str | None
    last_talked: str | None
    initiator: str | None
    transfers: tuple[Transfer, ...]
    queue: str | None
    click_to_call: bool
    consult: bool
    recordings: tuple[str, ...]
    gap: bool


class Judgement:
    """What one group's facts mean at this moment."""

    __slots__ = ("customers", "direction", "group", "parties", "view")

    def __init__(self, group: Group, view: PbxView) -> None:
        self.group = group
        self.view = view
        self.parties = parties_of(group, view)
        self.direction = self.parties.direction
        self.customers = self.parties.customers

    # -- who was alerted, who talked -----------------------------------------------------------------------------------

    def rang(self) -> tuple[str, ...]:
        """The internal numbers whose phone was alerted."""
        if self.direction is OUT:
            return ()
        # In order of dialling: phones of one group are alerted within a millisecond of each other, in any order.
        initiator, moves = self.parties.initiator, self.group.moves
        picked_up = [move.target for move in moves if move.kind == "pickup"] if moves else ()
        rang: list[str] = []
        for channel, number in self.parties.called:
            if channel is not initiator and number not in rang and not channel.consulted and channel not in picked_up and _was_alerted(channel):
                rang.append(number)
        return tuple(rang)

    def ringing_now(self) -> list[str]:
        """Internal numbers whose phone is being alerted at this moment, each once."""
        now: list[str] = []
        for channel, number in self.parties.called:
            if channel.up_at is None and channel.ended_at is None and number not in now and _was_alerted(channel):
                now.append(number)
        return now

    def talking_now(self) -> str | None:
        """The internal number of who talks with the customer at this moment."""
        last = self.group.talks[-1] if self.group.talks else None
        return last.person if last is not None and last.end is None and last.person and self.view.extensions[last.person] else None

    def up_now(self) -> list[str]:
        """Internal numbers whose phone is off the hook in this call."""
        return [number for channel, number in self.parties.ours if channel.up_at is not None and channel.ended_at is None]

    def spans(self) -> list[Talk]:
        """Talks, with a pause after which the same person comes back counted in, unless the customer was parked meanwhile."""
        talks = self.group.talks
        if len(talks) < 2:
            return talks
        merged: list[Talk] = []
        parked = [move.order for move in self.group.moves if move.kind == "park"]
        for talk in talks:
            last = merged[-1] if merged else None
            if last is not None and last.person == talk.person and last.end is not None and not any(last.order <= order < talk.order for order in parked):
                merged[-1] = Talk(talk.person, last.start, talk.end, last.order)
            else:
                merged.append(Talk(talk.person, talk.start, talk.end, talk.order))
        return merged

    # -- how it ended ----------------------------------------------------------------------------------------------------

    def result(self) -> Result:
        """By the contract's precedence; only for a call that is over."""
        group = self.group
        if group.talks:
            return Result.ANSWERED
        if any(channel.mailbox_at is not None for channel in group.channels.values()):
            return Result.VOICEMAIL
        if group.is_lost:  # a phone that rang to the last moment seen was not let ring out
            return Result.INTERRUPTED
        if self._gave_up():
            return Result.CANCELLED
        outcomes = {outcome for dial in group.dials if (outcome := self._leg_result(dial))}
        for result in (Result.NO_ANSWER, Result.BUSY, Result.REJECTED):
            if result in outcomes:
                return result
        return Result.UNAVAILABLE if Result.UNAVAILABLE in outcomes else self._dialplan_result()

    def _gave_up(self) -> bool:
        if self.group.consult:
            return True  # whoever asked went over to the other call
        calling = self._calling()
        requests = [channel.hangup_requested_at for channel in calling if channel.hangup_requested_at is not None]
        if requests:
            if self.direction is IN:
                return True
            dials = [d for d in self.group.dials if not self._is_plumbing(d) and not self._rings_initiator(d)]
            return not dials or any(d.ended_at is None or d.ended_at >= requests[0] for d in dials)
        if self.group.saw_hangup_request:
            return False
        if self.group.abandoned_at is not None:  # also told when the queue's own time is over: then the caller stays on
            return any(c.ended_at is not None and c.ended_at - self.group.abandoned_at < ABANDON_TO_HANGUP_S for c in calling)
        # A trace without HangupRequest: the last attempt was called off and nobody took the call.
        open_ends = [d for d in self.group.dials if not self._is_plumbing(d) and not d.forwarded]
        return bool(open_ends) and open_ends[-1].status == "CANCEL"

    def _calling(self) -> list[Channel]:
        """The side that placed the call; empty when it was never seen."""
        if self.direction is IN:
            return self.customers[:1]
        return [self.parties.initiator] if self.parties.initiator else []

    def _is_plumbing(self, dial: Dial) -> bool:
        dest = self.group.channels.get(dial.dest)
        return dest is None or dest.is_plumbing

    def _rings_initiator(self, dial: Dial) -> bool:
        return self.group.originated and self.parties.initiator is not None and dial.dest == self.parties.initiator.uniqueid

    def _leg_result(self, dial: Dial) -> Result | None:
        dest = self.group.channels.get(dial.dest)
        if dest is None or dest.is_plumbing or dial.forwarded:
            return None
        if self._rings_initiator(dial):  # a click's manager: who picked up leaves the rest to the customer's side
            if dest.up_at is not None:
                return None
            if dial.status == "CANCEL" and _was_alerted(dest):
                return Result.NO_ANSWER  # the Originate's time was over, or the manager's phone was let ring out
        cause = dest.cause
        if dial.status == "BUSY" or cause in _BUSY_CAUSES:
            return Result.BUSY
        if cause in _REJECTED_CAUSES:
            return Result.REJECTED
        if dial.status == "ANSWER":
            return Result.NO_ANSWER  # picked up, yet never talked with the customer: an unconfirmed mobile, a lost race
        if cause in _UNAVAILABLE_CAUSES or dial.status in ("CHANUNAVAIL", "CONGESTION"):
            return Result.UNAVAILABLE
        if dial.status == "CANCEL":
            return None
        if dial.status is None and dial.ended_at is None and dest.ended_at is None:
            return None
        was_alerted = _was_alerted(dest) or dial.alerted_at is not None or dial.progress_at is not None
        return Result.NO_ANSWER if was_alerted else Result.UNAVAILABLE

    def _dialplan_result(self) -> Result:
        """Nobody was dialled, or nothing told why: the cause that the dialplan gave the caller."""
        causes = {channel.cause for channel in self._calling()}
        if causes & _BUSY_CAUSES:
            return Result.BUSY
        return Result.REJECTED if causes & _REJECTED_CAUSES else Result.UNAVAILABLE

    def transfers(self) -> tuple[Transfer, ...]:
        """Everything that moved the call, in order: what people did, and forwards by the phone that rang (302)."""
        found = [(move.order, self._moved(move)) for move in self.group.moves] if self.group.moves else []
        for dial in self.group.dials:
            if dial.forwarded and (source := self.group.channels.get(dial.dest)) is not None and not source.is_plumbing:
                target, done = self._taken_after(dial.order, source)
                found.append((dial.order, Transfer("forward", self.parties.number_of(source), target, done)))
        return tuple([transfer for _, transfer in sorted(found, key=itemgetter(0))]) if found else ()

    def _moved(self, move: Move) -> Transfer:
        source = self.parties.number_of(move.source) if move.source else self._parker(move.source_shown)
        if move.target is not None:
            target = self.parties.number_of(move.target)
            done = self.group.heard.get(target or "", -1) >= move.order
        else:
            target, done = self._taken_after(move.order, move.source if move.kind != "park" else None)
            target = target or (self.view.number(move.exten) if move.kind != "park" else None)
        return Transfer(move.kind, source, target, done and not move.failed)

    def _parker(self, dial_string: str) -> str | None:
        """`PJSIP/161` -> 161."""
        endpoint = dial_string.partition("/")[2]
        return endpoint if self.view.is_extension(endpoint) else None

    def _taken_after(self, order: int, source: Channel | None) -> tuple[str | None, bool]:
        """Whom the call went on to after `order`, and whether they talked: who was dialled and talked, else who was dialled first.

        A call that comes back to its `source` was not taken.
        """
        until = min((move.order for move in self.group.moves if move.order > order), default=None)
        own = self.parties.number_of(source) if source is not None else None
        first = None
        for dial in self.group.dials:
            dest = self.group.channels.get(dial.dest)
            if dial.order <= order or dest is None or dest.is_plumbing or (until is not None and dial.order >= until):
                continue
            number = self.parties.number_of(dest)
            if number != own and self.group.heard.get(number or "", -1) > dial.order:
                return number, True
            first = first or number
        return first, False

    # -- the record --------------------------------------------------------------------------------------------------------

    def record(self) -> Call:
        """The call as it stands."""
        return self.whole(self.outline())

    def outline(self) -> Outline:
        """The call as it stands, without its legs and its talk time."""
        group, parties, view = self.group, self.parties, self.view
        if not group.call_id:
            group.call_id = call_id(view, group.first_uniqueid)
        spans = self.spans()
        fields = (
            group.call_id,
            view.enterprise,
            view.pbx,
            group.linkedid,
            self.direction,
            group.started_at,
            parties.customer_number,
            parties.customer_name,
            parties.line,
            spans[0].start if spans else None,
            group.closed_at,
            self.result() if group.closed_at is not None else None,
            self.rang(),
            spans[0].person or None if spans else None,
            spans[-1].person or None if spans else None,
            parties.initiator_number,
            self.transfers(),
            group.queue,
            group.originated and self.direction is OUT,
            group.consult,
            tuple(group.recordings),
            group.has_gap,
        )
        seen = tuple.__new__(Outline, fields)  # `Outline(*fields)`, of which the interpreter makes five times the work
        return completed(seen, group.prior) if group.prior else seen

    def whole(self, outline: Outline) -> Call:
        """An outline with its legs and its talk time."""
        last = self.group.last_seen_at
        talked = 0.0
        for talk in self.spans():
            end = last if talk.end is None else talk.end
            if end > talk.start:
                talked += end - talk.start
        legs = self._legs()
        if self.group.prior is not None:
            legs = all_legs(legs, self.group.prior.legs)
        return Call(*(outline + (talked, legs)))  # noqa: RUF005 - a display would be gathered in a list first

    def _legs(self) -> tuple[Leg, ...]:
        # A channel may outlive the call, in another one or by a moment: its part in this one is over.
        over_at = self.group.closed_at
        return tuple(
            [
                Leg(c.name, number, kind, c.created_at, c.up_at, c.ended_at if c.ended_at is not None else over_at, c.cause)
                for c, number, kind in self.parties.parts
            ]
        )


def outlined(call: Call) -> Outline:
    """The outline of a record."""
    return Outline(*[getattr(call, name) for name in Outline._fields])


def completed(seen: Outline, prior: Call) -> Outline:
    """A call whose beginning a former process saw: what was stored then, and what was seen since. Its legs: `all_legs`."""
    return seen._replace(
        id=prior.id,
        linkedid=prior.linkedid,
        started_at=prior.started_at,
        customer_number=prior.customer_number or seen.customer_number,
        customer_name=prior.customer_name or seen.customer_name,
        line=prior.line or seen.line,
        answered_at=prior.answered_at or seen.answered_at,
        answered_by=prior.answered_by or seen.answered_by,
        rang=tuple(dict.fromkeys(prior.rang + seen.rang)),
        initiator=prior.initiator or seen.initiator,
        transfers=prior.transfers + seen.transfers,
        queue=prior.queue or seen.queue,
        click_to_call=prior.click_to_call or seen.click_to_call,
        recordings=tuple(dict.fromkeys(prior.recordings + seen.recordings)),
        gap=True,
    )


def all_legs(seen: tuple[Leg, ...], before: tuple[Leg, ...]) -> tuple[Leg, ...]:
    """The legs that were stored, with the ends that were seen since, and those that came."""
    now, known = {leg.channel: leg for leg in seen}, {leg.channel for leg in before}
    ended = [replace(leg, ended_at=now[leg.channel].ended_at, cause=now[leg.channel].cause) if leg.channel in now else leg for leg in before]
    return (*ended, *[leg for leg in seen if leg.channel not in known])


def given_up(prior: Call, at: float) -> Call:
    """A stored call that is no longer there and whose end nobody saw: answered when somebody had talked, else interrupted."""
    result = Result.ANSWERED if prior.answered_at is not None else Result.INTERRUPTED
    legs = tuple(replace(leg, ended_at=leg.ended_at or at) for leg in prior.legs)
    return replace(prior, ended_at=at, result=result, gap=True, legs=legs)


def _was_alerted(channel: Channel) -> bool:
    """Whether the phone rang, or was picked up without a word of ringing; not one that took somebody else's call."""
    if channel.dialled is not None and channel.dialled.unpaired and not channel.was_born_called:
        return False
    told = channel.dialled is not None and channel.dialled.alerted_at is not None
    return told or channel.ringing_at is not None or channel.up_at is not None
