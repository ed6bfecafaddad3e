"""The actions vochid sends, typed. Pure. What is not here cannot be sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from daemon.ami.wire import ActionError, escape_variable

Headers = list[tuple[str, str]]

# The one event mask: what asterisk-conf/manager.d/vochid.conf grants. `dialplan` carries VarSet and Newexten, of which
# the filters there let through only MIXMONITOR_FILENAME and VoiceMail.
EVENT_MASK = "system,call,agent,dialplan"


@dataclass(frozen=True, slots=True)
class Action:
    """Base of all actions. `list_end` names the event that closes a list answer, when the answer is a list."""

    name: ClassVar[str]
    list_end: ClassVar[str | None] = None

    @property
    def chosen_id(self) -> str | None:
        """An ActionID that its sender chose, or None: the session gives one."""
        return None

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


# What may stand in an Originate. None of `,` `&` `|` `;` `$` `{` `[` `"` `<` and line breaks: dial strings, applications and the
# dialplan would give them a meaning.
_CHANNEL = re.compile(r"[A-Za-z0-9]+/[A-Za-z0-9_.@*#+:/-]{1,200}", re.ASCII)
_CONTEXT = re.compile(r"[A-Za-z0-9_-]{1,79}", re.ASCII)
_DIALLED = re.compile(r"\+?[0-9*#]{1,20}", re.ASCII)
_OWN_ID = re.compile(r"[A-Za-z0-9-]{8,100}", re.ASCII)
_VARIABLE = re.compile(r"_{0,2}[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9+*#._-]{0,100}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Originate(Action):
    """Rings `channel` and joins it to `phone`; always Async, so that no event waits behind it.

    second: `exten` sends the answered channel to phone@context, `dial` runs Dial on Local/phone@context. shown: what the first leg
    shows as its caller. channel_id is the ActionID and the first channel's Uniqueid, other_channel_id that of a Local channel's other
    half (manager.c, action_originate). Raises ActionError for any value that could mean more than itself.
    """

    name: ClassVar[str] = "Originate"
    channel: str
    context: str
    phone: str
    second: Literal["exten", "dial"]
    shown: str
    timeout_ms: int
    channel_id: str
    other_channel_id: str
    variables: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        wanted = [
            ("Channel", self.channel, _CHANNEL), ("Context", self.context, _CONTEXT), ("Exten", self.phone, _DIALLED),
            ("CallerID", self.shown, _DIALLED), ("ChannelId", self.channel_id, _OWN_ID), ("OtherChannelId", self.other_channel_id, _OWN_ID),
            *(("Variable", name, _VARIABLE) for name, _ in self.variables), *(("Variable", value, _VALUE) for _, value in self.variables),
        ]  # fmt: skip
        for header, value, pattern in wanted:
            if not pattern.fullmatch(value):
                raise ActionError(f"Originate {header}: contains what must not be dialled")

    @property
    def chosen_id(self) -> str:
        return self.channel_id

    def headers(self) -> Headers:
        second = (
            [("Context", self.context), ("Exten", self.phone), ("Priority", "1")]
            if self.second == "exten"
            else [("Application", "Dial"), ("Data", f"Local/{self.phone}@{self.context}")]
        )
        return [
            ("Channel", self.channel), *second, ("CallerID", f'"{self.shown}" <{self.shown}>'), ("Timeout", str(self.timeout_ms)), ("Async", "true"),
            ("ChannelId", self.channel_id), ("OtherChannelId", self.other_channel_id),
            *(("Variable", f"{name}={escape_variable(value)}") for name, value in self.variables),
        ]  # fmt: skip


def channel_of(template: str, extension: str, context: str) -> str:
    """The first leg's dial string: {extension} and {context} filled in, nothing else understood."""
    return template.replace("{extension}", extension).replace("{context}", context)


@dataclass(frozen=True, slots=True)
class DeviceStateList(Action):
    """Every device's state as DeviceStateChange items; wants write `call` or `reporting` (res_manager_devicestate)."""

    name: ClassVar[str] = "DeviceStateList"
    list_end: ClassVar[str | None] = "DeviceStateListComplete"


@dataclass(frozen=True, slots=True)
class ExtensionStateList(Action):
    """Every hint with its devices as ExtensionStatus items; wants write `call` or `reporting`."""

    name: ClassVar[str] = "ExtensionStateList"
    list_end: ClassVar[str | None] = "ExtensionStateListComplete"


@dataclass(frozen=True, slots=True)
class Redirect(Action):
    """Sends a live channel elsewhere in the dialplan; wants write `call`. Success means that it was queued."""

    name: ClassVar[str] = "Redirect"
    channel: str
    context: str
    exten: str

    def headers(self) -> Headers:
        return [("Channel", self.channel), ("Context", self.context), ("Exten", self.exten), ("Priority", "1")]
