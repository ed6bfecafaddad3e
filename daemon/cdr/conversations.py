"""CDR rows to calls, with the fields' meaning of a call seen live as far as CDR knows it. Pure.

What CDR cannot tell, seen on 16.28 and 22.10: who really rang of those dialled, where in a queue the ringing ended and the talk began
(a queue's row is answered when the queue picked up), transfers' ways, the line when a menu changed the extension. So `gap` is true.
Who gave up is read from where the dialplan stood at the end: in the midst of an attempt or a prompt it was the calling side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from daemon.calls.rules import call_id
from daemon.calls.view import PbxView
from daemon.cdr.rows import CdrRow
from daemon.model.call import Call, Direction, Leg, LegKind, Result

ATTEMPTS = frozenset({"Dial", "Queue", "AppDial", "AppQueue", "FollowMe", "RetryDial"})
ORIGINATED = "AppDial2"
PROMPTS = frozenset({"BackGround", "Background", "WaitExten", "Read", "Playback", "Wait", "MusicOnHold", "Queue", "Dial", "FollowMe"})
_NAME = re.compile(r'^"?(.*?)"? *<[^>]*>$')
_BOOT = "cdr"
_BY_CAUSE = {
    **dict.fromkeys((17,), Result.BUSY),
    **dict.fromkeys((21, 29, 50, 55, 57, 87), Result.REJECTED),
    **dict.fromkeys((1, 2, 3, 20, 22, 25, 27, 28, 34, 38, 41, 42, 44, 58), Result.UNAVAILABLE),
}


def conversations(rows: Iterable[CdrRow]) -> list[list[CdrRow]]:
    """Rows of one Linkedid (without the column: Uniqueid), each in its order, oldest first."""
    found: dict[str, list[CdrRow]] = {}
    for row in rows:
        if row.conversation:
            found.setdefault(row.conversation, []).append(row)
    for group in found.values():
        group.sort(key=lambda row: (row.start, row.sequence))
    return sorted(found.values(), key=lambda group: group[0].start)


def call_of(rows: Sequence[CdrRow], view: PbxView) -> Call:
    """The call that one conversation's rows tell of."""
    return _Conversation(rows, view).call()


class _Conversation:
    def __init__(self, rows: Sequence[CdrRow], view: PbxView) -> None:
        self.rows = rows
        self.view = view
        real = [row for row in rows if not _is_local(row.channel)]
        self.first = real[0] if real else rows[0]
        self.direction = self._direction()
        self.talks = [row for row in rows if self._is_talk(row)]
        self.attempts = [row for row in rows if (row.dstchannel and row.lastapp in ATTEMPTS) or row.lastapp == ORIGINATED]

    def call(self) -> Call:
        persons = [person for row in self.talks if (person := self._person(row))]
        talked = self._spans()
        ended_at = max(row.end for row in self.rows)
        return Call(
            id=call_id(self._named_view(), self.first.conversation),
            enterprise=self.view.enterprise,
            pbx=self.view.pbx,
            linkedid=self.first.conversation,
            direction=self.direction,
            started_at=self.rows[0].start,
            customer_number=self._customer(),
            customer_name=self._customer_name(),
            line=self._line(),
            answered_at=talked[0][0] if talked else None,
            ended_at=ended_at,
            talk_seconds=sum(end - start for start, end in talked),
            result=Result.ANSWERED if talked else self._unanswered(),
            rang=self._rang(),
            answered_by=persons[0] if persons else None,
            last_talked=persons[-1] if persons else None,
            initiator=None if self.direction is Direction.IN else self._extension(self.first.channel),
            queue=next((row.lastdata.partition(",")[0] or None for row in self.rows if row.lastapp == "Queue"), None),
            click_to_call=self.direction is Direction.OUT and (_is_local(self.rows[0].channel) or self.rows[0].lastapp == ORIGINATED),
            recordings=tuple(dict.fromkeys(row.recording for row in self.rows if row.recording)),
            gap=True,
            legs=self._legs(),
        )

    def _named_view(self) -> PbxView:
        return replace(self.view, boot=_BOOT)

    # -- who ---------------------------------------------------------------------------------------------------------

    def _extension(self, channel: str) -> str | None:
        """The internal number behind a channel's name; Local/150@… is 150's."""
        if self.view.is_trunk(channel):
            return None
        endpoint = channel.partition("/")[2]
        number = endpoint.partition("@")[0] if _is_local(channel) else endpoint.rpartition("-")[0]
        return number if self.view.is_extension(number) else None

    def _is_outside(self, row: CdrRow) -> bool:
        """Whether the calling channel of a row came from outside."""
        if self.view.is_trunk(row.channel):
            return True
        return row.dcontext in self.view.inbound_contexts and not _is_local(row.channel) and self._extension(row.channel) is None

    def _direction(self) -> Direction:
        if self._is_outside(self.first) and not _is_local(self.rows[0].channel):
            return Direction.IN
        if self._is_unanswered_click():
            return Direction.OUT
        if any(self.view.is_trunk(row.dstchannel) or self.view.is_trunk(row.channel) for row in self.rows):
            return Direction.OUT
        return Direction.OUT if self.view.is_phone(self.first.dst) and not self.view.is_extension(self.first.dst) else Direction.INTERNAL

    def _is_unanswered_click(self) -> bool:
        """A click-to-call whose first leg nobody picked up: the customer stands where the caller should."""
        return self.first.lastapp == ORIGINATED and not self.first.dstchannel and self.view.is_phone(self.first.src)

    def _is_talk(self, row: CdrRow) -> bool:
        """Two real channels that were connected, the customer's among them."""
        if row.disposition != "ANSWERED" or row.answer is None or row.lastapp not in ATTEMPTS or not row.dstchannel or _is_local(row.dstchannel):
            return False
        return self.direction is not Direction.OUT or self.view.is_trunk(row.dstchannel) or self.view.is_trunk(row.channel)

    def _person(self, row: CdrRow) -> str | None:
        """Who of ours talked in a row."""
        if self.direction is Direction.OUT:
            return self._extension(self.first.channel)
        return self._extension(row.dstchannel) or self.view.number(row.dst)

    def _customer(self) -> str | None:
        if self.direction is Direction.IN:
            return self.view.number(self.first.src)
        if self.direction is Direction.INTERNAL:
            return self.first.dst or None
        if self._is_unanswered_click():
            return self.view.number(self.first.src)
        out = next((row for row in self.rows if self.view.is_trunk(row.dstchannel)), self.first)
        return self.view.number(out.dst)

    def _customer_name(self) -> str | None:
        found = _NAME.match(self.first.clid) if self.direction is Direction.IN else None
        name = found[1].strip().strip('"') if found else ""
        return name if name and name != self.first.src else None

    def _line(self) -> str | None:
        if self.direction is Direction.IN:
            shown = [self.first.did, *(row.dst for row in self.rows)]
            return next((line for text in shown if (line := self.view.known_line(text))), None) or (
                self.view.number(self.first.dst) if self.view.is_phone(self.first.dst) else None
            )
        return next((line for row in self.rows if (line := self.view.known_line(row.src))), None) if self.direction is Direction.OUT else None

    def _rang(self) -> tuple[str, ...]:
        if self.direction is Direction.OUT:
            return ()
        alerted = [row for row in self.attempts if row.disposition in ("ANSWERED", "NO ANSWER")]
        return tuple(dict.fromkeys(number for row in alerted if not _is_local(row.dstchannel) and (number := self._extension(row.dstchannel))))

    def _legs(self) -> tuple[Leg, ...]:
        found: dict[str, Leg] = {}
        for row in self.rows:
            for channel, answer in ((row.channel, row.answer), (row.dstchannel, row.answer if row.disposition == "ANSWERED" else None)):
                if not channel or _is_local(channel):
                    continue
                former = found.get(channel)
                start = min(former.started_at, row.start) if former else row.start
                end = max(former.ended_at or row.end, row.end) if former else row.end
                at = former.answered_at if former and former.answered_at is not None else answer
                found[channel] = Leg(channel, self._number(channel, row), self._kind(channel), start, at, end)
        return tuple(found.values())

    def _number(self, channel: str, row: CdrRow) -> str | None:
        if (extension := self._extension(channel)) is not None:
            return extension
        return self.view.number(row.src if channel == row.channel else row.dst)

    def _kind(self, channel: str) -> LegKind:
        if self._extension(channel) is not None:
            return LegKind.INTERNAL
        is_customer = channel == self.first.channel if self.direction is Direction.IN else self.direction is Direction.OUT
        return LegKind.CUSTOMER if is_customer else LegKind.EXTERNAL

    # -- how it ended --------------------------------------------------------------------------------------------------

    def _spans(self) -> list[tuple[float, float]]:
        """When somebody talked with the customer; rows that overlap are one talk."""
        merged: list[tuple[float, float]] = []
        for start, end in sorted((row.answer or row.start, row.end) for row in self.talks):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        return merged

    def _unanswered(self) -> Result:
        if any(row.lastapp == "VoiceMail" for row in self.rows):
            return Result.VOICEMAIL
        last = self.rows[-1]
        if last.lastapp in PROMPTS and last.disposition in ("NO ANSWER", "ANSWERED") and not _ran_out(last):
            return Result.CANCELLED
        if last.lastapp == "Hangup" and last.lastdata.isascii() and last.lastdata.isdigit() and (told := _BY_CAUSE.get(int(last.lastdata[:4]))):
            return told
        dispositions = {row.disposition for row in self.attempts}
        if "NO ANSWER" in dispositions:
            return Result.NO_ANSWER
        return Result.BUSY if "BUSY" in dispositions else Result.UNAVAILABLE


def _is_local(channel: str) -> bool:
    return channel.startswith("Local/")


def _ran_out(row: CdrRow) -> bool:
    """Whether a Dial lasted as long as it was allowed to."""
    limit = row.lastdata.split(",")[1:2]
    return bool(row.lastapp == "Dial" and limit and limit[0].isascii() and limit[0].isdigit() and row.end - row.start >= int(limit[0][:6]))
