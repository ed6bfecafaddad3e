"""One AMI session as a state machine: bytes and time in, outputs out. Pure.

Greeting, login (MD5 challenge, else plain), answers and lists matched by ActionID, pings that are awaited, a
deadline on everything. The shell (link.py) owns the socket and the clock and obeys the outputs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from daemon.ami.actions import Action, Challenge, LoginMd5, LoginPlain, Ping
from daemon.ami.wire import Frame, FrameReader, Skipped, WireError, encode_action, read_banner

GREETING_DEADLINE_S = 5.0
LOGIN_DEADLINE_S = 8.0  # Asterisk sleeps 1 s before it refuses
ACTION_DEADLINE_S = 10.0
PING_AFTER_S = 10.0  # of silence
PONG_DEADLINE_S = 10.0  # a dead peer is therefore found 20 s after its last byte
MAX_LIST_ITEMS = 50_000
# Nobody here has a use for these, and where an administrator lets a client read everything they are a large part of what comes.
NOISE = frozenset({b"RTCPReceived", b"RTCPSent", b"Cdr", b"CEL", b"SuccessfulAuth", b"ChallengeSent"})


class State(StrEnum):
    """Where the dialogue stands."""

    GREETING = "greeting"
    CHALLENGED = "challenged"
    LOGIN = "login"
    READY = "ready"
    CLOSED = "closed"


class RefusedFor(StrEnum):
    """Why a login failed; each has a pace of its own for trying again."""

    CREDENTIALS = "credentials"
    ALREADY_IN_USE = "already_in_use"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for an action: its response frame and, for a list, the items without the closing event."""

    response: Frame
    items: tuple[Frame, ...] = ()

    @property
    def ok(self) -> bool:
        """Success, or Ping's Pong and Logoff's Goodbye."""
        return (self.response.get("Response") or "") in ("Success", "Pong", "Goodbye", "Follows")

    @property
    def message(self) -> str:
        return self.response.get("Message") or ""


@dataclass(frozen=True, slots=True)
class Write:
    """Send these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    action_id: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class ActionFailed:
    """No answer will come: `timeout`, `lost` or `too_long`. Whether the action was done is unknown."""

    action_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoggedIn:
    version: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The login was refused; close."""

    reason: RefusedFor
    message: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The session is over by our judgement: close. `what` is for the log and the status."""

    what: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """A frame was skipped: something happened on the PBX that the model did not see."""

    skipped: Skipped


# A frame by itself is an event that belongs to no action of ours: nearly everything that comes.
Output = Frame | Write | Answered | ActionFailed | LoggedIn | Refused | Broken | Unseen


@dataclass(slots=True)
class _Pending:
    action: Action
    deadline: float
    internal: bool
    response: Frame | None = None
    items: list[Frame] = field(default_factory=list)


class Session:
    """The dialogue of one connection. `now` is any monotonic clock in seconds.

    `id_prefix` must be random per connection: ActionIDs are broadcast to other manager clients, and counters collide.
    """

    def __init__(self, username: str, secret: str, id_prefix: str, now: float) -> None:
        self._username = username
        self._secret = secret
        self._prefix = id_prefix
        self._counter = 0
        self._reader = FrameReader(NOISE)
        self._greeting = b""
        self._pending: dict[str, _Pending] = {}
        self._last_heard = now
        self._state_deadline = now + GREETING_DEADLINE_S
        self._ping_id: str | None = None
        self.version = ""
        self.state = State.GREETING

    def receive(self, data: bytes, now: float) -> list[Output]:
        """Everything that these bytes bring about, in order."""
        if self.state is State.CLOSED:
            return []
        self._last_heard = now
        try:
            if self.state is State.GREETING:
                return self._greet(data, now)
            return self._frames(data, now)
        except WireError as error:
            return self._break(str(error))

    def send(self, action: Action, now: float, deadline_s: float = ACTION_DEADLINE_S) -> tuple[str, Write]:
        """Registers an action and gives its ActionID and bytes. Only in state READY."""
        if self.state is not State.READY:
            raise RuntimeError(f"cannot send {action.name} in state {self.state}")
        return self._send(action, now + deadline_s, internal=False)

    def tick(self, now: float) -> list[Output]:
        """What time alone brings about: expired actions, a ping that is due, a dead peer."""
        if self.state is State.CLOSED:
            return []
        if self.state is not State.READY:
            return self._break(f"no progress in state {self.state}") if now >= self._state_deadline else []
        if self._ping_id is not None and now >= self._pending[self._ping_id].deadline:
            if now - self._last_heard >= PONG_DEADLINE_S:
                return self._break("the peer is silent: no byte since the last ping")
            del self._pending[self._ping_id]  # alive by other bytes; a PBX that only lost our ping is no reason to leave
            self._ping_id = None
        outputs: list[Output] = []
        for action_id in [key for key, p in self._pending.items() if not p.internal and now >= p.deadline]:
            del self._pending[action_id]
            outputs.append(ActionFailed(action_id, "timeout"))
        if self._ping_id is None and now - self._last_heard >= PING_AFTER_S:
            outputs.append(self._ping(now))
        return outputs

    def due_in(self, now: float) -> float:
        """Seconds until `tick` has something to do, unless bytes or actions come before."""
        if self.state is not State.READY:
            return self._state_deadline - now
        due = min((pending.deadline for pending in self._pending.values()), default=math.inf)
        return (due if self._ping_id is not None else min(due, self._last_heard + PING_AFTER_S)) - now

    def lost(self) -> list[Output]:
        """The connection is gone: every action in flight fails. Nothing is ever sent again by itself."""
        self.state = State.CLOSED
        failed = [key for key, pending in self._pending.items() if not pending.internal]
        self._pending.clear()
        return [ActionFailed(action_id, "lost") for action_id in failed]

    # -- inside --------------------------------------------------------------------------------------------------

    def _greet(self, data: bytes, now: float) -> list[Output]:
        self._greeting += data
        found = read_banner(self._greeting)
        if found is None:
            return []
        self.version, rest = found
        self._greeting = b""
        self.state = State.CHALLENGED
        self._state_deadline = now + LOGIN_DEADLINE_S
        _, write = self._send(Challenge(), self._state_deadline, internal=True)
        return [write, *self._frames(rest, now)]

    def _frames(self, data: bytes, now: float) -> list[Output]:
        outputs: list[Output] = []
        for item in self._reader.feed(data):
            if isinstance(item, Skipped):
                outputs.append(Unseen(item))
            elif item.event and (not self._pending or b"ctionI" not in item.raw):  # nearly everything: no answer, no item of a list
                if self.state is State.READY:
                    outputs.append(item)
            else:
                outputs.extend(self._frame(item, now))
                if self.state is State.CLOSED:
                    break
        return outputs

    def _frame(self, frame: Frame, now: float) -> Sequence[Output]:
        action_id = frame.get("ActionID")
        pending = self._pending.get(action_id) if action_id else None
        if frame.event:
            if pending is not None and action_id is not None and pending.action.list_end is not None:
                return self._list_item(action_id, pending, frame)
            return (frame,) if self.state is State.READY else ()
        if frame.get("Response") is None:
            return (Unseen(Skipped("truncated", len(frame.raw))),) if self.state is State.READY else ()
        if pending is None or action_id is None:
            return self._unmatched(frame)
        return self._response(action_id, pending, frame, now)

    def _unmatched(self, frame: Frame) -> Sequence[Output]:
        if self.state in (State.CHALLENGED, State.LOGIN) and frame.get("Response") == "Error":
            return self._refuse(frame)  # "Login Already In Use" and ACL refusals may come without our ActionID
        return ()

    def _response(self, action_id: str, pending: _Pending, frame: Frame, now: float) -> Sequence[Output]:
        match self.state:
            case State.CHALLENGED:
                del self._pending[action_id]
                return [self._login(Answer(frame), now)]
            case State.LOGIN:
                del self._pending[action_id]
                return self._login_answer(Answer(frame), now)
            case State.READY:
                if pending.action.list_end is not None and frame.get("Response") == "Success":
                    pending.response = frame
                    return ()
                del self._pending[action_id]
                if action_id == self._ping_id:
                    self._ping_id = None
                return () if pending.internal else (Answered(action_id, Answer(frame)),)
            case State.GREETING | State.CLOSED:
                return ()
            case _:
                assert_never(self.state)

    def _login(self, answer: Answer, now: float) -> Write:
        challenge = answer.response.get("Challenge")
        login: Action
        if answer.ok and challenge:
            key = hashlib.md5((challenge + self._secret).encode(), usedforsecurity=False).hexdigest()
            login = LoginMd5(self._username, key)
        else:
            login = LoginPlain(self._username, self._secret)
        self.state = State.LOGIN
        return self._send(login, self._state_deadline, internal=True)[1]

    def _login_answer(self, answer: Answer, now: float) -> Sequence[Output]:
        if not answer.ok:
            return self._refuse(answer.response)
        self.state = State.READY
        self._last_heard = now
        return (LoggedIn(self.version),)

    def _refuse(self, frame: Frame) -> Sequence[Output]:
        message = frame.get("Message") or "login refused"
        in_use = "already in use" in message.lower()
        self.state = State.CLOSED
        return (Refused(RefusedFor.ALREADY_IN_USE if in_use else RefusedFor.CREDENTIALS, message[:120]),)

    def _list_item(self, action_id: str, pending: _Pending, frame: Frame) -> Sequence[Output]:
        if frame.event == pending.action.list_end:
            del self._pending[action_id]
            response = pending.response if pending.response is not None else frame
            return (Answered(action_id, Answer(response, tuple(pending.items))),)
        pending.items.append(frame)
        if len(pending.items) > MAX_LIST_ITEMS:
            del self._pending[action_id]
            return (ActionFailed(action_id, "too_long"),)
        return ()

    def _ping(self, now: float) -> Write:
        self._ping_id, write = self._send(Ping(), now + PONG_DEADLINE_S, internal=True)
        return write

    def _send(self, action: Action, deadline: float, *, internal: bool) -> tuple[str, Write]:
        self._counter += 1
        action_id = action.chosen_id or f"{self._prefix}-{self._counter}"
        data = encode_action([("Action", action.name), ("ActionID", action_id), *action.headers()])
        self._pending[action_id] = _Pending(action, deadline, internal)
        return action_id, Write(data)

    def _break(self, what: str) -> list[Output]:
        self.state = State.CLOSED
        return [Broken(what)]
