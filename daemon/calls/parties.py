"""Who is in a conversation: who of them is ours, who is the customer, which way the call goes. Pure.

Kept with the group until its make-up changes (a channel, a dial, a number): most events change only what happens to those who
are there, and that is rules.py.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from daemon.calls.graph import Channel, Group
from daemon.calls.view import PbxView
from daemon.model.call import CLICK_CHANNEL, Direction, LegKind
from daemon.model.phone import to_e164

_BY_BIRTH = attrgetter("created_at")
# Asked for all the time, and slow to find in their enumeration.
IN: Final = Direction.IN
OUT: Final = Direction.OUT
INTERNAL: Final = Direction.INTERNAL


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
    extensions = view.extensions
    for number in (channel.endpoint, channel.number):
        if number and extensions[number]:
            return number
    return None


def extension_of(channel: Channel, view: PbxView) -> str | None:
    """The internal number behind a channel: its endpoint's name, else the number it was born with, else what was dialled to
    reach it.

    Not its later CallerIDNum: a dialplan that sets the outgoing caller id turns that into the company's line.
    """
    if channel.is_plumbing or (is_external(channel, view) and view.is_trunk(channel.name)):
        return None
    endpoint, extensions = channel.endpoint, view.extensions
    for number in (endpoint, channel.number, channel.dialled.caller_exten if channel.dialled else None):
        if number and extensions[number]:
            return number
    if channel.context == view.internal_context and endpoint.isdigit():
        return endpoint  # a phone of ours that the pattern forgot: better its account than nobody
    return None


def parties_of(group: Group, view: PbxView) -> Parties:
    """Who is in the group, seen with `view`; judged anew only when facts.py let go of what was judged before."""
    parties = group.parties
    if parties is None or parties.view is not view:
        parties = group.parties = Parties(group, view)
    return parties


class Parties:
    """The people of one group and what follows from who they are. To be read only."""

    __slots__ = (
        "_numbers",
        "_parts",
        "arrived",
        "called",
        "colleagues",
        "customer_name",
        "customer_number",
        "customers",
        "direction",
        "externals",
        "group",
        "initiator",
        "initiator_number",
        "internals",
        "line",
        "ours",
        "view",
    )  # fmt: skip

    def __init__(self, group: Group, view: PbxView) -> None:
        self.group = group
        self.view = view
        self._numbers: dict[Channel, str | None] = {}
        self.externals: list[Channel] = []
        self.internals: list[Channel] = []
        for channel in group.channels.values():
            if not channel.is_plumbing:
                (self.externals if is_external(channel, view) else self.internals).append(channel)
        # In a call of our own placing nobody arrives, whatever part of it was not seen.
        came = [] if group.linkedid.startswith(CLICK_CHANNEL) else [channel for channel in self.externals if not is_called(channel)]
        self.colleagues = [channel for channel in came if self._shown_number(channel) in view.employee_mobiles] if view.employee_mobiles else []
        self.arrived = [channel for channel in came if channel not in self.colleagues] if self.colleagues else came
        self.initiator = self._initiator()
        self.direction = group.prior.direction if group.prior else self._direction()
        self.customers = self._customers()
        self.initiator_number = None if self.direction is IN or self.initiator is None else self.number_of(self.initiator)
        self.customer_number = self._customer_number()
        self.customer_name = self.customers[0].caller_name if self.direction is IN and self.customers else None
        self.line = self._line()
        self.ours = [(channel, number) for channel in self.internals if (number := self.number_of(channel))]
        self.called = [(channel, number) for channel, number in self.ours if is_called(channel)]
        self._parts: list[tuple[Channel, str | None, LegKind]] | None = None

    @property
    def parts(self) -> list[tuple[Channel, str | None, LegKind]]:
        """The real channels by birth, each with its number and whose it is."""
        if self._parts is None:
            real = [channel for channel in self.group.channels.values() if not channel.is_plumbing]
            real.sort(key=_BY_BIRTH)
            self._parts = [(channel, self.number_of(channel), self._kind(channel)) for channel in real]
        return self._parts

    def _kind(self, channel: Channel) -> LegKind:
        if channel not in self.externals:
            return LegKind.INTERNAL
        return LegKind.CUSTOMER if channel in self.customers else LegKind.EXTERNAL

    def _initiator(self) -> Channel | None:
        if self.arrived:
            return None
        for channel in self.internals:
            if channel.dialled is None and not is_called(channel):
                return channel
        if self.group.originated:
            return self.internals[0] if self.internals else None
        return self.colleagues[0] if self.colleagues else None

    def _direction(self) -> Direction:
        if self.arrived:
            return IN
        if self.group.originated:
            return OUT
        first = self.initiator
        if first is not None and self.view.is_extension(first.exten) and not self._went_out_as(first.exten):
            return INTERNAL
        if first in self.colleagues and len(self.externals) == len(self.colleagues):
            return INTERNAL  # from their mobile: no customer, and no missed call
        if self.externals:
            return INTERNAL if all(self._is_colleague(channel) for channel in self.externals) else OUT
        if first is None or not self.view.is_phone(first.exten):
            return INTERNAL
        return INTERNAL if self.view.number(first.exten) in self.view.employee_mobiles else OUT

    def _is_colleague(self, channel: Channel) -> bool:
        """Whether an outside channel is the mobile of one of ours."""
        return channel in self.colleagues or self.dialled_number(channel) in self.view.employee_mobiles

    def _went_out_as(self, dialled: str) -> bool:
        """Whether a trunk was given this very number: an emergency number may look like an extension."""
        return any(channel.dialled and channel.dialled.caller_exten == dialled for channel in self.externals)

    def _customers(self) -> list[Channel]:
        """The channels that are the customer, one after the other (reserve trunks); for an internal call its initiator."""
        if self.direction is IN:
            return self.arrived[:1]
        if self.direction is INTERNAL:
            return [self.initiator] if self.initiator else self.internals[:1]
        if not self.externals:
            return []
        if len(self.externals) == 1:
            return self.externals
        number = self.dialled_number(self.externals[0])
        return [channel for channel in self.externals if self.dialled_number(channel) == number]

    def number_of(self, channel: Channel) -> str | None:
        """A party's number: extension, or the outside number as it called or was dialled."""
        if channel.group is not self.group:
            return self._number(channel)
        if channel in self._numbers:
            return self._numbers[channel]
        number = self._numbers[channel] = self._number(channel)
        return number

    def _number(self, channel: Channel) -> str | None:
        if not is_external(channel, self.view):
            return extension_of(channel, self.view)
        return self.dialled_number(channel) if is_called(channel) else self._shown_number(channel)

    def _shown_number(self, channel: Channel) -> str | None:
        """The number a caller showed. A gateway may show the line's own number until the dialplan sets the caller's."""
        lines = self.view.known_lines
        for text in (channel.number, channel.shown_as):
            if text and not lines[text]:
                return self.view.numbers[text]
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

    def _customer_number(self) -> str | None:
        if self.direction is INTERNAL:
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
        shown = [self.group.originate_exten, first.shown_as if first else None, *[dial.caller_shown for dial in self.group.dials]]
        return next((self.view.number(text) for text in shown if self.view.is_phone(text) and not self.view.known_line(text)), None)

    def _called_inside(self) -> str | None:
        first = self.initiator
        if first is None:
            return None
        return self.view.line(first.exten) if self.view.is_phone(first.exten) else first.exten or None

    def _line(self) -> str | None:
        if self.direction is IN:
            return self.view.line(self.customers[0].exten) if self.customers else None
        if self.direction is OUT:
            lines = self.view.known_lines
            for text in [*[dial.caller_shown for dial in self.group.dials], *[channel.shown_as for channel in self.internals]]:
                if text and (line := lines[text]):
                    return line
        return None


def is_called(channel: Channel) -> bool:
    """Dialled, or born on behalf of another channel (a DialBegin may not have been seen)."""
    return channel.dialled is not None or channel.was_born_called
