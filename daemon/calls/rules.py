"""What the facts mean: direction, who is the customer, who talked, how it ended. Pure: facts in, record out."""

from __future__ import annotations

import uuid
from dataclasses import replace

from daemon.calls.graph import Channel, Dial, Group, Move, Talk
from daemon.calls.view import PbxView
from daemon.model.call import CLICK_CHANNEL, Call, Direction, Leg, LegKind, Result, Transfer
from daemon.model.phone import to_e164

ABANDON_TO_HANGUP_S = 0.5
_NAMESPACE = uuid.UUID("5f1c2e9a-6d55-4c0e-9c59-0b8f3f1f6d10")

# Q.850 causes. DialStatus alone does not tell these apart: a phone's 403 and 404 arrive as NOANSWER.
_BUSY_CAUSES = frozenset({17})
_REJECTED_CAUSES = frozenset({21, 29, 50, 55, 57, 87})
_UNAVAILABLE_CAUSES = frozenset(
    {1, 2, 3, 5, 6, 20, 22, 25, 27, 28, 34, 38, 41, 42, 44, 47, 58, 63, 65, 66, 69, 79, 88, 95, 96, 97, 98, 99, 100, 101, 102, 103, 111}
)


def call_id(view: PbxView, first_uniqueid: str) -> str:
    """A call's id: the same for the same (enterprise, pbx, boot, first uniqueid), on every node and after a restart."""
    return str(uuid.uuid5(_NAMESPACE, "\0".join((view.enterprise, view.pbx, view.boot, first_uniqueid))))


def is_external(channel: Channel, view: PbxView) -> bool:
    """Whether a real channel leads out of the office. A dialled trunk carries the trunk's own context too."""
    if channel.is_outside is None:
        channel.is_outside = not channel.is_plumbing and _leads_out(channel, view)
    return channel.is_outside


def _leads_out(channel: Channel, view: PbxView) -> bool:
    if view.is_trunk(channel.name) or channel.context in view.inbound_contexts:
        return True
    return channel.context != view.internal_context and _own_extension(channel, view) is None


def has_customer(group: Group, view: PbxView) -> bool:
    """Whether somebody from outside is in the group."""
    return any(is_external(channel, view) for channel in group.channels.values())


def _own_extension(channel: Channel, view: PbxView) -> str | None:
    return next((number for number in (channel.endpoint, channel.number) if view.is_extension(number)), None)


def extension_of(channel: Channel, view: PbxView) -> str | None:
    """The internal number behind a channel: its endpoint's name, else the number it was born with, else what was dialled to
    reach it.

    Not its later CallerIDNum: a dialplan that sets the outgoing caller id turns that into the company's line.
    """
    if channel.is_plumbing or (is_external(channel, view) and view.is_trunk(channel.name)):
        return None
    dialled = channel.dialled.caller_exten if channel.dialled else None
    known = next((number for number in (channel.endpoint, channel.number, dialled) if view.is_extension(number)), None)
    if known is None and channel.context == view.internal_context and channel.endpoint.isdigit():
        return channel.endpoint  # a phone of ours that the pattern forgot: better its account than nobody
    return known


class Judgement:
    """Everything derived from one group's facts, each thing once."""

    def __init__(self, group: Group, view: PbxView) -> None:
        self.group = group
        self.view = view
        self.externals: list[Channel] = []
        self.internals: list[Channel] = []
        for channel in group.channels.values():
            if not channel.is_plumbing:
                (self.externals if is_external(channel, view) else self.internals).append(channel)
        # In a call of our own placing nobody arrives, whatever part of it was not seen.
        came = [] if group.linkedid.startswith(CLICK_CHANNEL) else [channel for channel in self.externals if _arrived(channel)]
        self.colleagues = [channel for channel in came if self._shown_number(channel) in view.employee_mobiles] if view.employee_mobiles else []
        self.arrived = [channel for channel in came if channel not in self.colleagues] if self.colleagues else came
        self.initiator = self._initiator()
        self.direction = group.prior.direction if group.prior else self._direction()
        self.customers = self._customers()

    # -- who ---------------------------------------------------------------------------------------------------------

    def _initiator(self) -> Channel | None:
        if self.arrived:
            return None
        for channel in self.internals:
            if channel.dialled is None and not _is_called(channel):
                return channel
        if self.group.originated:
            return self.internals[0] if self.internals else None
        return self.colleagues[0] if self.colleagues else None

    def _direction(self) -> Direction:
        if self.arrived:
            return Direction.IN
        if self.group.originated:
            return Direction.OUT
        first = self.initiator
        if first is not None and self.view.is_extension(first.exten) and not self._went_out_as(first.exten):
            return Direction.INTERNAL
        if first in self.colleagues and len(self.externals) == len(self.colleagues):
            return Direction.INTERNAL  # from their mobile: no customer, and no missed call
        if self.externals:
            return Direction.INTERNAL if all(self._is_colleague(channel) for channel in self.externals) else Direction.OUT
        if first is None or not self.view.is_phone(first.exten):
            return Direction.INTERNAL
        return Direction.INTERNAL if self.view.number(first.exten) in self.view.employee_mobiles else Direction.OUT

    def _is_colleague(self, channel: Channel) -> bool:
        """Whether an outside channel is the mobile of one of ours."""
        return channel in self.colleagues or self.dialled_number(channel) in self.view.employee_mobiles

    def _went_out_as(self, dialled: str) -> bool:
        """Whether a trunk was given this very number: an emergency number may look like an extension."""
        return any(channel.dialled and channel.dialled.caller_exten == dialled for channel in self.externals)

    def _customers(self) -> list[Channel]:
        """The channels that are the customer, one after the other (reserve trunks); for an internal call its initiator."""
        if self.direction is Direction.IN:
            return self.arrived[:1]
        if self.direction is Direction.INTERNAL:
            return [self.initiator] if self.initiator else self.internals[:1]
        if not self.externals:
            return []
        number = self.dialled_number(self.externals[0])
        return [channel for channel in self.externals if self.dialled_number(channel) == number]

    def number_of(self, channel: Channel) -> str | None:
        """A party's number: extension, or the outside number as it called or was dialled."""
        if not is_external(channel, self.view):
            return extension_of(channel, self.view)
        return self._shown_number(channel) if _arrived(channel) else self.dialled_number(channel)

    def _shown_number(self, channel: Channel) -> str | None:
        """The number a caller showed. A gateway may show the line's own number until the dialplan sets the caller's."""
        for text in (channel.number, channel.shown_as):
            if text and not self.view.known_line(text):
                return self.view.number(text)
        return None

    def dialled_number(self, channel: Channel) -> str | None:
        """The number that was dialled to reach an external channel.

        A dial string may differ from what was dialled (prefixes, other digits): the first candidate that is a real
        number wins, from what the caller dialled to what the trunk was given.
        """
        dial = channel.dialled
        candidates = [dial.caller_exten, dial.dial_string.partition("@")[0].rpartition("/")[2]] if dial else []
        candidates.insert(1, channel.number or "")
        if self.arrived:  # an arrived call that goes out again, to a mobile: the dialplan stands at the line that was called
            candidates = [text for text in candidates if not self.view.known_line(text)]
        if self.initiator is not None and not self.group.originated:
            candidates.append(self.initiator.exten)
        for candidate in candidates:
            if candidate and (number := to_e164(candidate, self.view.country)):
                return number
        shorter = [shown for candidate in candidates if (shown := self.view.number(candidate))]
        return next((shown for shown in shorter if not self.view.is_extension(shown)), shorter[0] if shorter else None)

    @property
    def customer_number(self) -> str | None:
        if self.direction is Direction.INTERNAL:
            return self._called_inside()
        if self.customers:
            return self.number_of(self.customers[0])
        return self._meant_to_call()

    def _meant_to_call(self) -> str | None:
        """The number of an outgoing call that got no further than our own phone."""
        first = self.initiator
        if not self.group.originated:
            return self.view.number(first.exten) if first else None
        # OriginateResponse names it, but may come too late; the first leg shows it to the manager.
        shown = [self.group.originate_exten, first.shown_as if first else None, *(dial.caller_shown for dial in self.group.dials)]
        return next((self.view.number(text) for text in shown if self.view.is_phone(text) and not self.view.known_line(text)), None)

    def _called_inside(self) -> str | None:
        first = self.initiator
        if first is None:
            return None
        return self.view.line(first.exten) if self.view.is_phone(first.exten) else first.exten or None

    @property
    def customer_name(self) -> str | None:
        return self.customers[0].caller_name if self.direction is Direction.IN and self.customers else None

    @property
    def line(self) -> str | None:
        if self.direction is Direction.IN:
            return self.view.line(self.customers[0].exten)
        if self.direction is Direction.OUT:
            shown = [dial.caller_shown for dial in self.group.dials] + [c.shown_as or "" for c in self.internals]
            return next((line for text in shown if (line := self.view.known_line(text))), None)
        return None

    # -- who was alerted, who talked -----------------------------------------------------------------------------------

    @property
    def rang(self) -> tuple[str, ...]:
        if self.direction is Direction.OUT:
            return ()
        # In order of dialling: phones of one group are alerted within a millisecond of each other, in any order.
        others = [self.initiator, *(move.target for move in self.group.moves if move.kind == "pickup")]
        alerted = [c for c in self.internals if _is_called(c) and c not in others and not c.consulted and _was_alerted(c)]
        return tuple(dict.fromkeys(number for c in alerted if (number := extension_of(c, self.view))))

    def ringing_now(self) -> tuple[str, ...]:
        """Internal numbers whose phone is being alerted at this moment."""
        now = [
            extension_of(channel, self.view)
            for channel in self.internals
            if channel.ended_at is None and channel.up_at is None and _is_called(channel) and _was_alerted(channel)
        ]
        return tuple(dict.fromkeys(number for number in now if number))

    def talking_now(self) -> str | None:
        """The internal number of who talks with the customer at this moment."""
        last = self.group.talks[-1] if self.group.talks else None
        return last.person if last is not None and last.end is None and self.view.is_extension(last.person) else None

    def up_now(self) -> set[str]:
        """Internal numbers whose phone is off the hook in this call."""
        return {number for c in self.internals if c.ended_at is None and c.up_at is not None and (number := extension_of(c, self.view))}

    def spans(self) -> list[Talk]:
        """Talks, with a pause after which the same person comes back counted in, unless the customer was parked meanwhile."""
        merged: list[Talk] = []
        parked = [move.order for move in self.group.moves if move.kind == "park"]
        for talk in self.group.talks:
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
            if self.direction is Direction.IN:
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
        if self.direction is Direction.IN:
            return self.customers[:1]
        return [self.initiator] if self.initiator else []

    def _is_plumbing(self, dial: Dial) -> bool:
        dest = self.group.channels.get(dial.dest)
        return dest is None or dest.is_plumbing

    def _rings_initiator(self, dial: Dial) -> bool:
        return self.group.originated and self.initiator is not None and dial.dest == self.initiator.uniqueid

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
        found = [(move.order, self._moved(move)) for move in self.group.moves]
        for dial in self.group.dials:
            source = self.group.channels.get(dial.dest)
            if dial.forwarded and source is not None and not source.is_plumbing:
                target, done = self._taken_after(dial.order, source)
                found.append((dial.order, Transfer("forward", self.number_of(source), target, done)))
        return tuple(transfer for _, transfer in sorted(found, key=lambda item: item[0]))

    def _moved(self, move: Move) -> Transfer:
        source = self.number_of(move.source) if move.source else self._parker(move.source_shown)
        if move.target is not None:
            target = self.number_of(move.target)
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
        own = self.number_of(source) if source is not None else None
        first = None
        for dial in self.group.dials:
            dest = self.group.channels.get(dial.dest)
            if dial.order <= order or dest is None or dest.is_plumbing or (until is not None and dial.order >= until):
                continue
            number = self.number_of(dest)
            if number != own and self.group.heard.get(number or "", -1) > dial.order:
                return number, True
            first = first or number
        return first, False

    # -- the record --------------------------------------------------------------------------------------------------------

    def record(self) -> Call:
        """The call as it stands."""
        return self.whole(self.outline())

    def outline(self) -> Call:
        """The record without what changes all the time: legs, talk time. Two outlines that are equal tell nobody anything new."""
        group, spans = self.group, self.spans()
        persons = [talk.person for talk in spans]
        if not group.call_id:
            group.call_id = call_id(self.view, group.first_uniqueid)
        seen = Call(
            id=group.call_id,
            enterprise=self.view.enterprise,
            pbx=self.view.pbx,
            linkedid=group.linkedid,
            direction=self.direction,
            started_at=group.started_at,
            customer_number=self.customer_number,
            customer_name=self.customer_name,
            line=self.line,
            answered_at=spans[0].start if spans else None,
            ended_at=group.closed_at,
            result=self.result() if group.closed_at is not None else None,
            rang=self.rang,
            answered_by=persons[0] or None if persons else None,
            last_talked=persons[-1] or None if persons else None,
            initiator=self._initiator_number(),
            transfers=self.transfers() if group.moves or group.dials else (),
            queue=group.queue,
            click_to_call=group.originated and self.direction is Direction.OUT,
            consult=group.consult,
            recordings=tuple(group.recordings),
            gap=group.has_gap,
        )
        return completed(seen, group.prior) if group.prior else seen

    def whole(self, outline: Call) -> Call:
        """An outline with its legs and its talk time."""
        last = self.group.last_seen_at
        talked = sum(max(0.0, (talk.end if talk.end is not None else last) - talk.start) for talk in self.spans())
        legs = tuple(self._leg(c) for c in sorted(self.group.channels.values(), key=lambda c: c.created_at) if not c.is_plumbing)
        if self.group.prior is not None:
            legs = all_legs(legs, self.group.prior.legs)
        return replace(outline, talk_seconds=talked, legs=legs)

    def _initiator_number(self) -> str | None:
        if self.direction is Direction.IN or self.initiator is None:
            return None
        return self.number_of(self.initiator)

    def _leg(self, channel: Channel) -> Leg:
        kind = LegKind.INTERNAL
        if channel in self.externals:
            kind = LegKind.CUSTOMER if channel in self.customers else LegKind.EXTERNAL
        # A channel may outlive the call, in another one or by a moment: its part in this one is over.
        ended_at = channel.ended_at if channel.ended_at is not None else self.group.closed_at
        return Leg(channel.name, self.number_of(channel), kind, channel.created_at, channel.up_at, ended_at, channel.cause)


def completed(seen: Call, prior: Call) -> Call:
    """A call whose beginning a former process saw: what was stored then, and what was seen since. Its legs: `all_legs`."""
    return replace(
        seen,
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
    return (*ended, *(leg for leg in seen if leg.channel not in known))


def given_up(prior: Call, at: float) -> Call:
    """A stored call that is no longer there and whose end nobody saw: answered when somebody had talked, else interrupted."""
    result = Result.ANSWERED if prior.answered_at is not None else Result.INTERRUPTED
    legs = tuple(replace(leg, ended_at=leg.ended_at or at) for leg in prior.legs)
    return replace(prior, ended_at=at, result=result, gap=True, legs=legs)


def _arrived(channel: Channel) -> bool:
    return channel.dialled is None and not _is_called(channel)


def _is_called(channel: Channel) -> bool:
    """Dialled, or born on behalf of another channel (a DialBegin may not have been seen)."""
    return channel.dialled is not None or channel.was_born_called


def _was_alerted(channel: Channel) -> bool:
    """Whether the phone rang, or was picked up without a word of ringing; not one that took somebody else's call."""
    if channel.dialled is not None and channel.dialled.unpaired and not channel.was_born_called:
        return False
    told = channel.dialled is not None and channel.dialled.alerted_at is not None
    return told or channel.ringing_at is not None or channel.up_at is not None
