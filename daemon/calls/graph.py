"""The facts of a PBX's calls: channels, dials, bridges, Local pairs. Pure data and the walk over it.

A call is a graph, not a Linkedid: Linkedid changes when calls merge. Nothing here judges; rules.py does. Plain classes, not
dataclasses: what few of them ever have stands at the class, and compiled they are made without the interpreter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.model.call import Call

if TYPE_CHECKING:
    from daemon.calls.parties import Parties

# Bridges in which people talk; parking and queue holding are `holding`.
TALKING_BRIDGES = frozenset({"basic", "base", "", "stasis"})
# Channels that are no party: Local pairs, and what Asterisk itself puts into bridges (announcers, recorders, masquerades).
PLUMBING = ("Local/", "CBAnn/", "CBRec/", "Announcer/", "Recorder/", "Bridge/", "Surrogate/", "AsyncGoto/", "Parked/")


class Dial:
    """One attempt to reach `dest`. `caller` is None for an originated leg; `order` is the model's count of events, since times
    may be equal or missing.
    """

    alerted_at: float | None = None
    progress_at: float | None = None
    ended_at: float | None = None
    status: str | None = None
    forwarded: bool = False
    unpaired: bool = False  # its end came without a beginning

    def __init__(self, caller: str | None, dest: str, began_at: float, order: int, dial_string: str, caller_exten: str, caller_shown: str) -> None:
        self.caller = caller
        self.dest = dest
        self.began_at = began_at
        self.order = order
        self.dial_string = dial_string
        self.caller_exten = caller_exten
        self.caller_shown = caller_shown


class Channel:
    """One channel by Uniqueid; number, name, context and exten are those it was born with."""

    was_born_called: bool = False  # born under another channel's Linkedid: it is being called
    is_outside: bool | None = None  # judged by parties.py, kept until the number changes
    consulted: bool = False  # talked on a line of its own before it came to this call: what it did there is told there
    is_started: bool = False  # was seen in state Ring or Up: it acts, it does not only exist
    up_at: float | None = None
    ringing_at: float | None = None
    ended_at: float | None = None
    cause: int | None = None
    hangup_requested_at: float | None = None
    is_let_go: bool = False  # the PBX hangs it up by itself
    mailbox_at: float | None = None
    pair: str | None = None
    bridge: str | None = None
    parted: int = 0  # `order` when it last left a bridge, or was left alone in one
    shown_as: str | None = None
    dialled: Dial | None = None  # the latest dial that has this channel as its destination

    def __init__(
        self, uniqueid: str, name: str, linkedid: str, context: str, exten: str, number: str | None, caller_name: str | None, created_at: float, group: Group
    ) -> None:
        self.uniqueid = uniqueid
        self.name = name
        self.linkedid = linkedid
        self.context = context
        self.exten = exten
        self.number = number
        self.caller_name = caller_name
        self.created_at = created_at
        self.group = group
        self.is_plumbing = name.startswith(PLUMBING)

    @property
    def endpoint(self) -> str:
        """`PJSIP/150-00000001` -> `150`."""
        return self.name.partition("/")[2].rpartition("-")[0]


class Bridge:
    """One bridge; members in order of entering."""

    def __init__(self, id: str, kind: str = "basic") -> None:
        self.id = id
        self.kind = kind
        self.members: dict[str, None] = {}


class Talk:
    """A span in which the customer heard `person`; `end` is None while it lasts. `order` as in Dial."""

    def __init__(self, person: str, start: float, end: float | None = None, order: int = 0) -> None:
        self.person = person
        self.start = start
        self.end = end
        self.order = order


class Move:
    """The call was moved on purpose: by `source`, to `target` when that is known already, else to whoever is dialled after it.

    `kind` as in the record: blind, attended, blonde, pickup, park. `exten` is what the mover dialled. `source_shown`: `PJSIP/161`,
    when the channel itself is not named.
    """

    def __init__(
        self,
        kind: str,
        order: int,
        source: Channel | None,
        target: Channel | None = None,
        exten: str = "",
        parked: Channel | None = None,
        source_shown: str = "",
        failed: bool = False,
    ) -> None:
        self.kind = kind
        self.order = order
        self.source = source
        self.target = target
        self.exten = exten
        self.parked = parked
        self.source_shown = source_shown
        self.failed = failed


class Recall:
    """A call that was handed over by keys while it rang: taken by nobody, it makes the PBX call `endpoint` back and show it `shown`.

    `target`: what the PBX rings meanwhile.
    """

    def __init__(self, endpoint: str, shown: str | None, target: Channel) -> None:
        self.endpoint = endpoint
        self.shown = shown
        self.target = target


class Group:
    """The channels that belong to one conversation, and what was seen of it."""

    queue: str | None = None
    abandoned_at: float | None = None
    originated: bool = False
    originate_exten: str | None = None
    has_gap: bool = False
    is_lost: bool = False
    closed_at: float | None = None
    consult: bool = False
    confers: bool = False  # in a conference, where other customers may be too
    saw_hangup_request: bool = False
    call_id: str = ""  # of this boot; made by rules.py when first needed
    parties: Parties | None = None  # judged by parties.py, kept until one of the facts that say who is who changes
    prior: Call | None = None  # what a former process stored of this call: its beginning was not seen here

    def __init__(self, first_uniqueid: str, linkedid: str, started_at: float, order: int) -> None:
        self.first_uniqueid = first_uniqueid
        self.linkedid = linkedid
        self.started_at = started_at
        self.last_seen_at = started_at
        self.order = order  # which came first is told by order, not by time: a trace may have none
        self.channels: dict[str, Channel] = {}
        self.dials: list[Dial] = []
        self.talks: list[Talk] = []
        self.heard: dict[str, int] = {}  # everybody the customer was ever bridged with -> order when last
        self.moves: list[Move] = []
        self.recordings: list[str] = []

    def let_go(self) -> None:
        """It is over, and so are its channels: what refers to each other is taken apart, so that none of it waits for the garbage collector."""
        self.parties = None
        self.channels, self.moves = {}, []

    def live(self) -> list[Channel]:
        """Channels that are still up, Local ones too."""
        return [channel for channel in self.channels.values() if channel.ended_at is None]


class Graph:
    """All live facts of one PBX."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.bridges: dict[str, Bridge] = {}

    def reach(self, channel: Channel) -> list[Channel]:
        """The real channels that hear `channel` now: over bridges, and through Local pairs from bridge to bridge."""
        found: list[Channel] = []
        seen_bridges: set[str] = set()
        waiting = [channel]
        while waiting:
            current = waiting.pop()
            bridge = self.bridges.get(current.bridge) if current.bridge else None
            if bridge is None or bridge.id in seen_bridges or bridge.kind not in TALKING_BRIDGES:
                continue
            seen_bridges.add(bridge.id)
            for uniqueid in bridge.members:
                member = self.channels.get(uniqueid)
                if member is None or member is channel:
                    continue
                if not member.is_plumbing:
                    found.append(member)
                elif member.pair and (other := self.channels.get(member.pair)) is not None:
                    waiting.append(other)
        return found
