"""The call: one record per customer conversation (contract section 5)."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from daemon.model.immutable import immutable

CLICK_CHANNEL = "vochid-click-"  # how the Uniqueids begin that vochid gives to the channels it originates


class Direction(StrEnum):
    """Seen from the enterprise."""

    IN = "in"
    OUT = "out"
    INTERNAL = "internal"


class Result(StrEnum):
    """How a call ended, in order of precedence."""

    ANSWERED = "answered"
    VOICEMAIL = "voicemail"
    CANCELLED = "cancelled"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    INTERRUPTED = "interrupted"


class LegKind(StrEnum):
    """Who is on the other end of a channel."""

    CUSTOMER = "customer"
    INTERNAL = "internal"
    EXTERNAL = "external"


@immutable
class Leg:
    """One real channel of a call. Times are Unix seconds; `cause` is the Q.850 cause of its hangup."""

    channel: str
    number: str | None
    kind: LegKind
    started_at: float
    answered_at: float | None = None
    ended_at: float | None = None
    cause: int | None = None


@immutable
class Transfer:
    """A call moved from one of ours to another. `kind`: blind, attended, blonde, pickup, forward, park."""

    kind: str
    source: str | None
    target: str | None
    completed: bool


@immutable
class Call:
    """The record. Times are Unix seconds; the fields' meaning is contract section 5."""

    id: str
    enterprise: str
    pbx: str
    linkedid: str
    direction: Direction
    started_at: float
    customer_number: str | None = None
    customer_name: str | None = None
    line: str | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    result: Result | None = None
    rang: tuple[str, ...] = ()
    answered_by: str | None = None
    last_talked: str | None = None
    initiator: str | None = None
    transfers: tuple[Transfer, ...] = ()
    queue: str | None = None
    click_to_call: bool = False
    consult: bool = False
    recordings: tuple[str, ...] = ()
    gap: bool = False
    talk_seconds: float = 0.0
    legs: tuple[Leg, ...] = ()

    @property
    def missed(self) -> bool:
        return self.direction is Direction.IN and self.result not in (None, Result.ANSWERED)

    @property
    def wait_seconds(self) -> float:
        """Start to first answer, or to the end; 0 while it rings."""
        until = self.answered_at if self.answered_at is not None else self.ended_at
        return round(max(0.0, round(until, 3) - round(self.started_at, 3)), 3) if until is not None else 0.0

    def to_json(self) -> dict[str, Any]:
        """The record as the API, the live stream and `calls replay` show it."""
        return {
            "id": self.id,
            "enterprise": self.enterprise,
            "pbx": self.pbx,
            "linkedid": self.linkedid,
            "direction": str(self.direction),
            "customer_number": self.customer_number,
            "customer_name": self.customer_name,
            "line": self.line,
            "started_at": iso(self.started_at),
            "answered_at": iso(self.answered_at),
            "ended_at": iso(self.ended_at),
            "wait_seconds": self.wait_seconds,
            "talk_seconds": round(self.talk_seconds, 3),
            "result": str(self.result) if self.result else None,
            "missed": self.missed,
            "rang": list(self.rang),
            "answered_by": self.answered_by,
            "last_talked": self.last_talked,
            "initiator": self.initiator,
            "transfers": [{"kind": t.kind, "from": t.source, "to": t.target, "completed": t.completed} for t in self.transfers],
            "queue": self.queue,
            "click_to_call": self.click_to_call,
            "consult": self.consult,
            "recordings": list(self.recordings),
            "gap": self.gap,
            "legs": [
                {
                    "channel": leg.channel,
                    "number": leg.number,
                    "kind": str(leg.kind),
                    "started_at": iso(leg.started_at),
                    "answered_at": iso(leg.answered_at),
                    "ended_at": iso(leg.ended_at),
                    "cause": leg.cause,
                }
                for leg in self.legs
            ],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Call:
        """The inverse of to_json, for what the store kept."""
        return cls(
            id=data["id"],
            enterprise=data["enterprise"],
            pbx=data["pbx"],
            linkedid=data["linkedid"],
            direction=Direction(data["direction"]),
            started_at=unix(data["started_at"]) or 0.0,
            customer_number=data["customer_number"],
            customer_name=data["customer_name"],
            line=data["line"],
            answered_at=unix(data["answered_at"]),
            ended_at=unix(data["ended_at"]),
            talk_seconds=data["talk_seconds"],
            result=Result(data["result"]) if data["result"] else None,
            rang=tuple(data["rang"]),
            answered_by=data["answered_by"],
            last_talked=data["last_talked"],
            initiator=data["initiator"],
            transfers=tuple(Transfer(t["kind"], t["from"], t["to"], t["completed"]) for t in data["transfers"]),
            queue=data["queue"],
            click_to_call=data["click_to_call"],
            consult=data["consult"],
            recordings=tuple(data["recordings"]),
            gap=data["gap"],
            legs=tuple(
                Leg(
                    leg["channel"],
                    leg["number"],
                    LegKind(leg["kind"]),
                    unix(leg["started_at"]) or 0.0,
                    unix(leg["answered_at"]),
                    unix(leg["ended_at"]),
                    leg["cause"],
                )
                for leg in data["legs"]
            ),
        )


def iso(at: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC with milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(round(at, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix(text: str | None) -> float | None:
    """The inverse of iso."""
    return None if text is None else datetime.fromisoformat(text).timestamp()
