"""What the sync needs of our side: pairs of a record and an entity, and a place for what became of them. The daemon implements it over its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from adapters.bitrix24.sync_fields import Surroundings, View
from adapters.bitrix24.sync_rules import Known
from daemon.model.crm_record import RecordType
from daemon.model.delivery import Delivery, Outcome


@dataclass(frozen=True, slots=True)
class Pair:
    """A record and its entity, as far as they are known before the portal is asked. `local`: the record's view, None when it is gone or not here yet;
    `changed`: when its fields were changed, Unix seconds; `entity_id`: None until there is one; `known`: None for a pair that was never equal;
    `deleted`: one side is gone for good; `elsewhere`: the entity became a record's meanwhile, whose own lane takes it from here."""

    kind: RecordType | None
    record_id: int | None
    entity_type: str
    entity_id: int | None
    local: View | None
    around: Surroundings
    changed: Mapping[str, float] = field(default_factory=dict)
    known: Known | None = None
    deleted: bool = False
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be stored of one delivery. `apply`: values for the record, from `local` as it was loaded; a record is made of them when there was none.
    `gone`: the entity is not there any more; `instead`: the entity is of this record, whose own lane takes it from here.
    `to_portal`: the last change went there. `tasks`: None when they were not asked for."""

    pair: Pair
    outcome: Outcome
    kind: RecordType | None = None
    entity_id: int | None = None
    apply: Mapping[str, Any] = field(default_factory=dict)
    known: Known | None = None
    conflicts: Sequence[Mapping[str, Any]] = ()
    to_portal: bool = False
    gone: bool = False
    instead: tuple[RecordType, int] | None = None
    tasks: Sequence[Mapping[str, Any]] | None = None
    changed_at: float | None = None


class SyncRoom(Protocol):
    """One enterprise's side of the sync."""

    async def load(self, batch: Sequence[Delivery]) -> Sequence[Pair]:
        """The pairs that deliveries are about, in order."""

    async def contracts(self, numbers: Sequence[str]) -> frozenset[str]:
        """Which of these contract numbers there are here."""

    async def keep(self, batch: Sequence[Delivery], kept: Sequence[Kept]) -> Sequence[Outcome]:
        """Stores what became of them; an outcome that cannot be stored (a number that two contracts would have) becomes another. What failed is noted."""
