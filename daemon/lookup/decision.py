"""From what the sources said to one answer. Pure; the precedence is told in docs/smart-redirect.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from daemon.lookup.name import caller_name
from daemon.model.crm import Responsible, UserStatus
from daemon.model.device import DeviceState


class Status(StrEnum):
    """VOCHI_STATUS. found: the extension can take the call (in mode name: the customer is known); busy: who looks after the
    customer is known and cannot take it now; timeout, error: a source did not say in time, or failed; disabled: switched off."""

    FOUND = "found"
    UNKNOWN = "unknown"
    BUSY = "busy"
    TIMEOUT = "timeout"
    DISABLED = "disabled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and why. `name` is fit for the dialplan; `source` is who named the manager, or empty."""

    status: Status
    extension: str | None = None
    name: str = ""
    reason: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """A source's answer: `known` is None when it does not know the number; `failed` says why it could not tell."""

    source: str
    known: Responsible | None = None
    failed: str = ""
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Who should take the call, before anybody looked whether that person can. extension None: nobody was named."""

    extension: str | None
    source: str
    name: str
    otherwise: Status = Status.UNKNOWN
    reason: str = ""


def choose(said: Sequence[Said], extension_of: Callable[[str, Responsible], str | None]) -> Choice:
    """The first source, in their order, whose manager has an extension; the name is that of the first source with one."""
    name = next((shown for each in said if each.known and (shown := caller_name(each.known.customer_name))), "")
    for each in said:
        if each.known is not None and (extension := extension_of(each.source, each.known)) is not None:
            return Choice(extension, each.source, name)
    failed = [each for each in said if each.failed]
    reason = "; ".join(f"{each.source}: {each.failed}" for each in failed)
    if any(each.is_late for each in failed):
        return Choice(None, "", name, Status.TIMEOUT, reason)
    if failed:
        return Choice(None, "", name, Status.ERROR, reason)
    return Choice(None, "", name, Status.UNKNOWN, "nobody looks after this number" if any(each.known for each in said) else "the number is not known")


def verdict(choice: Choice, device: DeviceState, status: UserStatus, was_tried: bool) -> Decision:
    """Whether the chosen one can take the call now."""
    if choice.extension is None:
        return Decision(choice.otherwise, None, choice.name, choice.reason)
    if was_tried:
        problem = "was tried in this call already"
    elif device is not DeviceState.FREE:
        problem = f"is {device}"
    elif status is not UserStatus.FREE:
        problem = f"has the status {status}"
    else:
        return Decision(Status.FOUND, choice.extension, choice.name, f"named by {choice.source}", choice.source)
    return Decision(Status.BUSY, None, choice.name, f"{choice.extension} {problem}", choice.source)
