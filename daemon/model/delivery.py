"""What a CRM is told, and what came of it: the values between delivery and the adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from daemon.model.call import Call

Memory = Mapping[str, Any]  # JSON; what a CRM answered and the next delivery of the same call needs (Bitrix24's CALL_ID)


class Kind(StrEnum):
    """Kinds of delivery. An adapter uses those its CRM knows."""

    POPUP = "popup"
    HANGUP = "hangup"
    JOURNAL = "journal"
    RECORDING = "recording"
    CALLED_BACK = "called_back"
    TICKET = "ticket"
    MESSAGE = "message"
    STATUS = "status"
    TASK = "task"  # what rules make of a call: a task, a lead; and that it is done
    ORDER = "order"  # somebody's order, a record of its own
    SYNC = "sync"  # a record of ours and its counterpart at the CRM are made equal


class Priority(IntEnum):
    """Lower goes first within a CRM account."""

    POPUP = 0
    JOURNAL = 1
    SYNC = 2


@dataclass(frozen=True, slots=True)
class Planned:
    """One thing to be told, decided while the call's change is recorded.

    `key` makes it unique per (enterprise, integration): the same key is never stored twice. `expires_s`: after this
    many seconds it has lost its point and is dropped instead of sent. `with_recordings`: it carries the call's recordings, so
    it waits until they are whole, for a while.
    """

    kind: Kind
    key: str
    payload: Mapping[str, Any]
    priority: Priority
    expires_s: float | None = None
    with_recordings: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """What a delivery may be about instead of a call. `type`: small letters, like ticket, order or contact; `id`: its own, at most 200 characters."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> Record:
        """From `type/id`."""
        kind, _, own = text.partition("/")
        return cls(kind, own)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of the outbox in the hands of an adapter. `attempt` counts from 1. `recordings`: links to the call's recordings, the
    largest first, for the kinds that were planned `with_recordings`.

    It is about a call or about a record, which is also its lane: deliveries of one lane go in the order in which they were stored.
    """

    id: int
    kind: Kind
    about: Call | Record
    payload: Mapping[str, Any]
    attempt: int
    memory: Memory = field(default_factory=dict)
    recordings: tuple[str, ...] = ()

    @property
    def call(self) -> Call:
        """The call, of a kind that is about calls."""
        assert isinstance(self.about, Call), f"{self.kind} is about {self.about}"
        return self.about

    @property
    def record(self) -> Record:
        """The record, of a kind that is about records."""
        assert isinstance(self.about, Record), f"{self.kind} is about a call"
        return self.about

    @property
    def names(self) -> dict[str, str]:
        """What it is about, for people and logs: `call` with its id, or `record`."""
        return {"call": self.about.id} if isinstance(self.about, Call) else {"record": str(self.about)}


@dataclass(frozen=True, slots=True)
class Delivered:
    """The CRM has it. `memory` is kept per (lane, connection) and handed to the lane's next delivery."""

    detail: str = ""
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retry:
    """It surely did not arrive; another try may succeed. `after_s`: not before this many seconds."""

    reason: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Throttled:
    """The account is over its limit: the connection pauses, the attempt does not count. `own_kind`: only what is of the same kind is over
    its limit; everything else goes on."""

    reason: str
    after_s: float
    own_kind: bool = False


@dataclass(frozen=True, slots=True)
class AuthExpired:
    """The credentials are refused: the connection waits for new ones, nothing is lost."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The CRM refuses this item, and would again: a dead letter with the CRM's words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The request left and no answer came: it may have arrived. Reconciled before anything is sent again."""

    reason: str


Outcome = Delivered | Retry | Throttled | AuthExpired | Rejected | Ambiguous


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, secrets masked and bodies cut, as integration_logs keeps it."""

    request: Mapping[str, Any]
    response: Mapping[str, Any]
    duration_ms: float


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` requests in any `period_s` seconds."""

    count: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Leak:
    """A leaky bucket: `per_s` requests drain every second, and one more may go in while it holds fewer than `up_to`.

    All of one policy with the same `shared` name fill the same bucket: what may fill it only partly leaves the rest to what matters more.
    """

    shared: str
    up_to: int
    per_s: float

    @property
    def count(self) -> int:
        """As a window's: so many at once."""
        return self.up_to

    @property
    def period_s(self) -> float:
        """As a window's: after so long a full one is empty."""
        return self.up_to / self.per_s


@dataclass(frozen=True, slots=True)
class Policy:
    """How an adapter's kinds are delivered.

    deadline_s: per kind that the CRM is told, for one attempt. batch: how many of a kind go in one request. repeatable: kinds that
    the CRM itself recognises as the same when they are sent again, so that an Ambiguous one may simply be repeated.
    concurrency: requests in flight per CRM account. kept_for_popups: how many of them no other batched kind takes, where those wait long for
    their places. one_at_a_time: kinds of which one request is in flight per connection, whatever is due: they can wait, and
    take nobody's room. mp3: the CRM plays recordings as MP3 only.
    """

    deadline_s: Mapping[Kind, float]
    batch: Mapping[Kind, int]
    repeatable: frozenset[Kind]
    rates: Mapping[str, Rate | Leak]
    concurrency: int
    mp3: bool = False
    kept_for_popups: int = 0
    one_at_a_time: frozenset[Kind] = frozenset()


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a connection test."""

    name: str
    ok: bool
    detail: str = ""
    field: str | None = None
