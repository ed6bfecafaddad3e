"""Events of channels: born, ringing, up, renamed, hung up; and what their applications tell. Pure."""

from __future__ import annotations

from daemon.ami.wire import unescape
from daemon.calls.facts import Event, Facts, known

SHUTTING_DOWN = "4"  # AST_SOFTHANGUP_SHUTDOWN; seen on 16.28 and 22.10 for `core stop now`, `core restart now` and SIGTERM


class OnChannels(Facts):
    """Newchannel to Hangup, queues, mailboxes, recordings."""

    def _newchannel(self, event: Event, at: float) -> None:
        uniqueid = event.get("Uniqueid") or ""
        if uniqueid and uniqueid not in self._graph.channels and uniqueid not in self._tombstones:
            self._add(event, "", at, is_partial=False)

    def _newstate(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is not None:
            if self._state(channel, event.get("ChannelState"), at):
                self._touch(channel.group, at)
            else:
                self._see(channel.group, at)

    def _newcallerid(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is None:
            return
        number = known(event.get("CallerIDNum"))
        if number != channel.shown_as or channel.number is None:
            channel.shown_as, channel.group.parties = number, None
        if channel.number is None:
            channel.number, channel.is_outside = number, None
        self._see(channel.group, at)

    def _rename(self, event: Event, at: float) -> None:
        channel = self._graph.channels.get(event.get("Uniqueid") or "")
        if channel is not None and (name := event.get("Newname")):
            channel.name, channel.group.parties = name, None

    def _hangup_request(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is None:
            return
        if channel.hangup_requested_at is None:
            channel.hangup_requested_at = at
        channel.group.saw_hangup_request = True
        self._see(channel.group, at)

    def _soft_hangup_request(self, event: Event, at: float) -> None:
        """The PBX ends a channel by itself, or after its peer asked: so this stream has hangup requests at all.

        When it stops it says so here, of every channel; the Shutdown event comes only after the hangups. Such an end is nobody's: whatever
        hangups and dial statuses follow, how the call would have ended was not seen.
        """
        channel = self._channel(event, at)
        if channel is None:
            return
        group = channel.group
        group.saw_hangup_request = channel.is_let_go = True
        is_ending = group.closed_at is not None or group in self._closing or any(c.hangup_requested_at is not None for c in group.live())
        if event.get("Cause") == SHUTTING_DOWN and not is_ending:
            group.is_lost = group.has_gap = True

    def _hangup(self, event: Event, at: float) -> None:
        channel = self._graph.channels.get(event.get("Uniqueid") or "")
        if channel is None:
            return
        cause = event.get("Cause") or ""
        self._end_channel(channel, at, int(cause) if cause.isascii() and cause.isdigit() and len(cause) < 4 else None)

    def _local_bridge(self, event: Event, at: float) -> None:
        one, two = self._channel(event, at, "LocalOne"), self._channel(event, at, "LocalTwo")
        if one is not None and two is not None:
            one.pair, two.pair = two.uniqueid, one.uniqueid
            self._join(one.group, two.group, at)

    # -- applications -----------------------------------------------------------------------------------------------------

    def _queue_join(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is not None:
            channel.group.queue = event.get("Queue")
            self._touch(channel.group, at)

    def _queue_abandon(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is not None:
            channel.group.abandoned_at = at
            self._touch(channel.group, at)

    def _newexten(self, event: Event, at: float) -> None:
        if event.get("Application") == "VoiceMail" and (channel := self._channel(event, at)) is not None:
            channel.mailbox_at = at
            self._touch(channel.group, at)

    def _varset(self, event: Event, at: float) -> None:
        if event.get("Variable") != "MIXMONITOR_FILENAME":
            return
        channel, value = self._channel(event, at), unescape(event.get("Value") or "")
        if channel is not None and value and value not in channel.group.recordings:
            channel.group.recordings.append(value)
            self._touch(channel.group, at)
