"""The actions vochid sends, typed. Pure. What is not here cannot be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

Headers = list[tuple[str, str]]

# The one event mask: what asterisk-conf/manager.d/vochid.conf grants. `dialplan` carries VarSet and Newexten, of which
# the filters there let through only MIXMONITOR_FILENAME and VoiceMail.
EVENT_MASK = "system,call,agent,dialplan"


@dataclass(frozen=True, slots=True)
class Action:
    """Base of all actions. `list_end` names the event that closes a list answer, when the answer is a list."""

    name: ClassVar[str]
    list_end: ClassVar[str | None] = None

    def headers(self) -> Headers:
        """Its headers besides Action and ActionID, in order."""
        return []


@dataclass(frozen=True, slots=True)
class Challenge(Action):
    name: ClassVar[str] = "Challenge"

    def headers(self) -> Headers:
        return [("AuthType", "MD5")]


@dataclass(frozen=True, slots=True, repr=False)
class LoginMd5(Action):
    """Login with the answer to a challenge: md5(challenge + secret), lower-case hex."""

    name: ClassVar[str] = "Login"
    username: str
    key: str

    def headers(self) -> Headers:
        return [("AuthType", "MD5"), ("Username", self.username), ("Key", self.key), ("Events", EVENT_MASK)]


@dataclass(frozen=True, slots=True, repr=False)
class LoginPlain(Action):
    name: ClassVar[str] = "Login"
    username: str
    secret: str

    def headers(self) -> Headers:
        return [("Username", self.username), ("Secret", self.secret), ("Events", EVENT_MASK)]


@dataclass(frozen=True, slots=True)
class Logoff(Action):
    name: ClassVar[str] = "Logoff"


@dataclass(frozen=True, slots=True)
class Ping(Action):
    """Answered by Pong with the PBX's `Timestamp`: keep-alive and clock offset at once."""

    name: ClassVar[str] = "Ping"


@dataclass(frozen=True, slots=True)
class CoreStatus(Action):
    """CoreStartupDate and CoreStartupTime: tells a restart from a lost socket."""

    name: ClassVar[str] = "CoreStatus"


@dataclass(frozen=True, slots=True)
class CoreShowChannels(Action):
    """Every channel's snapshot: the ground that a resync stands on."""

    name: ClassVar[str] = "CoreShowChannels"
    list_end: ClassVar[str | None] = "CoreShowChannelsComplete"


@dataclass(frozen=True, slots=True)
class BridgeList(Action):
    """Every bridge with its type and technology; open to any logged-in user (main/manager_bridges.c, 13 to 22)."""

    name: ClassVar[str] = "BridgeList"
    list_end: ClassVar[str | None] = "BridgeListComplete"


@dataclass(frozen=True, slots=True)
class ListCommands(Action):
    """Exactly the actions this manager user may run: the probe for its rights."""

    name: ClassVar[str] = "ListCommands"
