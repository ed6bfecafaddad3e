"""Where a request stands, and what moves it on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from daemon.model.call import Call, LegKind, Result


class State(StrEnum):
    """States of a request, as the contract names them."""

    RESERVED = "reserved"
    UNKNOWN = "unknown"
    SENT = "sent"
    MANAGER_ANSWERED = "manager_answered"
    CUSTOMER_ANSWERED = "customer_answered"
    ENDED = "ended"
    REFUSED = "refused"
    FAILED = "failed"


OPEN = (State.RESERVED, State.UNKNOWN, State.SENT, State.MANAGER_ANSWERED, State.CUSTOMER_ANSWERED)

# From which states one gets to each; news comes in any order, and what is behind the present state changes nothing.
COMES_FROM: Mapping[State, tuple[State, ...]] = {
    State.RESERVED: (),
    State.REFUSED: (),
    State.UNKNOWN: (State.RESERVED, State.SENT),
    State.SENT: (State.RESERVED, State.UNKNOWN),
    State.MANAGER_ANSWERED: (State.RESERVED, State.UNKNOWN, State.SENT),
    State.CUSTOMER_ANSWERED: (State.RESERVED, State.UNKNOWN, State.SENT, State.MANAGER_ANSWERED),
    State.ENDED: OPEN,
    State.FAILED: (State.RESERVED, State.UNKNOWN, State.SENT),
}


@dataclass(frozen=True, slots=True)
class Progress:
    """A state and why: `code` for programs, `reason` for people."""

    state: State
    code: str | None = None
    reason: str | None = None


def moves(now: State, then: State) -> bool:
    """Whether news of `then` changes a request that is `now`."""
    return now in COMES_FROM[then]


# OriginateResponse's Reason (channel states of ast_originate): 4 answered is a success and never here.
_FAILED_BECAUSE = {
    "1": ("manager_hung_up", "the manager's phone hung up"),
    "3": ("manager_no_answer", "the manager did not pick up"),
    "5": ("manager_busy", "the manager's phone is busy"),
    "8": ("congestion", "the PBX has no free way to the manager's phone"),
}
_UNREACHABLE = ("manager_unreachable", "the PBX could not reach the manager's phone (0: no such phone, or not registered)")
_MANAGER = {
    Result.NO_ANSWER: ("manager_no_answer", "the manager did not pick up"),
    Result.CANCELLED: ("manager_no_answer", "the manager did not pick up"),
    Result.BUSY: ("manager_busy", "the manager's phone is busy"),
    Result.REJECTED: ("manager_rejected", "the manager's phone rejected the call"),
    Result.INTERRUPTED: ("interrupted", "its end was not seen"),
}
_CUSTOMER = {
    Result.ANSWERED: (None, None),
    Result.VOICEMAIL: ("voicemail", "the call reached a mailbox"),
    Result.CANCELLED: ("manager_hung_up", "the manager hung up before the customer answered"),
    Result.NO_ANSWER: ("customer_no_answer", "the customer did not pick up"),
    Result.BUSY: ("customer_busy", "the customer is busy"),
    Result.REJECTED: ("customer_rejected", "the call to the customer was rejected"),
    Result.UNAVAILABLE: ("customer_unavailable", "the customer could not be reached"),
    Result.INTERRUPTED: ("interrupted", "its end was not seen"),
}


def of_response(is_success: bool, reason: str | None) -> Progress:
    """What an OriginateResponse says: with endpoint or Local first, success is the manager's answer."""
    if is_success:
        return Progress(State.MANAGER_ANSWERED)
    return Progress(State.FAILED, *_FAILED_BECAUSE.get(reason or "", _UNREACHABLE))


def of_call(call: Call) -> Progress:
    """What the record of the call that came of a request says."""
    picked_up = any(leg.answered_at is not None for leg in call.legs if leg.kind is not LegKind.CUSTOMER)
    if call.ended_at is None:
        if call.answered_at is not None:
            return Progress(State.CUSTOMER_ANSWERED)
        return Progress(State.MANAGER_ANSWERED if picked_up else State.SENT)
    result = call.result or Result.INTERRUPTED
    if call.gap and call.answered_at is None:
        return Progress(State.ENDED, "interrupted", "a part of it was not seen")
    if not picked_up and call.answered_at is None:
        return Progress(State.FAILED, *_MANAGER.get(result, _UNREACHABLE))
    return Progress(State.ENDED, *_CUSTOMER[result])
