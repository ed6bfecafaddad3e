"""What looking up needs of the rest of the house; joined in daemon/wiring/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from daemon.model.crm import Responsible, UserStatus
from daemon.model.device import DeviceState


class SourceFailed(Exception):
    """A source could not say; the breaker counts it when `outage`."""

    def __init__(self, reason: str, *, outage: bool = True) -> None:
        super().__init__(reason)
        self.outage = outage


class Source(Protocol):
    """Whoever may know who looks after a number: a CRM, or the calls so far."""

    @property
    def name(self) -> str:
        """Unique within the enterprise."""

    @property
    def concurrency(self) -> int:
        """How many questions at once it takes."""

    @property
    def user_extensions(self) -> Mapping[str, str | None]:
        """Its user ids with their extensions."""

    async def responsible(self, phone: str, deadline_s: float) -> Responsible | None:
        """Who looks after the number; None: not known. Raises SourceFailed."""


class Sources(Protocol):
    """The sources of an enterprise, in the order of precedence."""

    def sources(self, enterprise: str) -> Sequence[Source]: ...


class Surroundings(Protocol):
    """The PBX on which the question came up; where that is not known, all PBXs of the enterprise."""

    @property
    def conversation(self) -> str | None:
        """The live conversation that the channel belongs to."""

    def state(self, extension: str) -> DeviceState:
        """Whether the extension can take a call."""

    def was_tried(self, extension: str) -> bool:
        """Whether it was already part of this conversation."""


class Presence(Protocol):
    """Who is where."""

    async def at(self, enterprise: str, channel: str, uniqueid: str, extension: str, within_s: float) -> Surroundings:
        """What is known around a call and an extension, on whichever daemon; what is not told in time is not known. Raises nothing."""


class UserStatuses(Protocol):
    """What managers set in their CRM."""

    async def by_user(self, enterprise: str, integration: str) -> Mapping[str, UserStatus]:
        """Every status that is known, by CRM user id."""


class Journal(Protocol):
    """Where decisions are written down, off the hot path; never waits and never raises."""

    def note(self, enterprise: str, source: str, event_type: str, request: Mapping[str, object], response: Mapping[str, object], error: str | None) -> None: ...
