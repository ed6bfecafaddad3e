"""The facts of a PBX's calls: channels, dials, bridges, Local pairs. Pure data and the walk over it.

A call is a graph, not a Linkedid: Linkedid changes when calls merge. Nothing here judges; rules.py does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon.model.call import Call

if TYPE_CHECKING:
    from daemon.calls.parties import Parties

# Bridges in which people talk; parking and queue holding are `holding`.
TALKING_BRIDGES = frozenset({"basic", "base", "", "stasis"})
# Channels that are no party: Local pairs, and what Asterisk itself puts into bridges (announcers, recorders, masquerades).
PLUMBING = ("Local/", "CBAnn/", "CBRec/", "Announcer/", "Recorder/", "Bridge/", "Surrogate/", "AsyncGoto/", "Parked/")


@dataclass(slots=True)
class Dial:
    """One attempt to reach `dest`. `caller` is None for an originated leg; `order` is the model's count of events, since times
    may be equal or missing.
    """

    caller: str | None
    dest: str
    began_at: float
    order: int = 0
    dial_string: str = ""
    caller_exten: str = ""
    caller_shown: str = ""
    alerted_at: float | None = None
    progress_at: float | None = None
    ended_at: float | None = None
    status: str | None = None
    forwarded: bool = False
    unpaired: bool = False  # its end came without a beginning


@dataclass(slots=True, eq=False)
class Channel:
    """One channel by Uniqueid; number, name, context and exten are those it was born with."""

    uniqueid: str
    name: str
    linkedid: str
    context: str
    exten: str
    number: str | None
    caller_name: str | None
    created_at: float
    group: Group
    was_born_called: bool = False  # born under another channel's Linkedid: it is being called
    is_plumbing: bool = False
    is_outside: bool | None = None  # judged by rules.py, kept until the number changes
    consulted: bool = False  # talked on a line of its own before it came to this call: what it did there is told there
    is_started: bool = False  # was seen in state Ring or Up: it acts, it does not only exist
    up_at: float | None = None
    ringing_at: float | None = None
    ended_at: float | None = None
    cause: int | None = None
    hangup_requested_at: float | None = None
    mailbox_at: float | None = None
    pair: str | None = None
    bridge: str | None = None
    parted: int = 0  # `order` when it last left a bridge, or was left alone in one
    shown_as: str | None = None
    dialled: Dial | None = None  # the latest dial that has this channel as its destination

    @property
    def endpoint(self) -> str:
        """`PJSIP/150-00000001` -> `150`."""
        return self.name.partition("/")[2].rpartition("-")[0]


@dataclass(slots=True)
class Bridge:
    """One bridge; members in order of entering."""

    id: str
    kind: str = "basic"
    members: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Talk:
    """A span in which the customer heard `person`; `end` is None while it lasts. `order` as in Dial."""

    person: str
    start: float
    end: float | None = None
    order: int = 0


@dataclass(slots=True)
class Move:
    """The call was moved on purpose: by `source`, to `target` when that is known already, else to whoever is dialled after it.

    `kind` as in the record: blind, attended, blonde, pickup, park. `exten` is what the mover dialled.
    """

    kind: str
    order: int
    source: Channel | None
    target: Channel | None = None
    exten: str = ""
    parked: Channel | None = None
    source_shown: str = ""  # `PJSIP/161`, when the channel itself is not named
    failed: bool = False


@dataclass(slots=True, eq=False)
class Group:
    """The channels that belong to one conversation, and what was seen of it."""

    first_uniqueid: str
    linkedid: str
    started_at: float
    order: int = 0  # which came first is told by order, not by time: a trace may have none
    channels: dict[str, Channel] = field(default_factory=dict)
    dials: list[Dial] = field(default_factory=list)
    talks: list[Talk] = field(default_factory=list)
    heard: dict[str, int] = field(default_factory=dict)  # everybody the customer was ever bridged with -> order when last
    moves: list[Move] = field(default_factory=list)
    recordings: list[str] = field(default_factory=list)
    queue: str | None = None
    abandoned_at: float | None = None
    originated: bool = False
    originate_exten: str | None = None
    has_gap: bool = False
    is_lost: bool = False
    last_seen_at: float = 0.0
    closed_at: float | None = None
    consult: bool = False
    confers: bool = False  # in a conference, where other customers may be too
    saw_hangup_request: bool = False
    call_id: str = ""  # of this boot; made by rules.py when first needed
    parties: Parties | None = None  # judged by parties.py, kept until one of the facts that say who is who changes
    prior: Call | None = None  # what a former process stored of this call: its beginning was not seen here

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
