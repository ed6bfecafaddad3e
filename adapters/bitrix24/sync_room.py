"""What the sync needs of our side: pairs of a record and an entity, and a place for what became of them. The daemon implements it over its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from adapters.bitrix24.sync_fields import Surroundings, View
from adapters.bitrix24.sync_pairing import Signs
from adapters.bitrix24.sync_rules import Known
from daemon.model.crm_record import RecordType
from daemon.model.delivery import Delivery, Outcome

TASK = "task"  # stands where an entity's type does: a task, which leads to deals


@dataclass(frozen=True, slots=True)
class Pair:
    """A record and its entity, as far as they are known before the portal is asked. `local`: the record's view, None when it is gone or not here yet;
    `changed`: when its fields were changed, Unix seconds; `entity_id`: None until there is one; `known`: None for a pair that was never equal;
    `deleted`: one side is gone for good; `elsewhere`: the entity became a record's meanwhile, whose own lane takes it from here; `twin`: an entity that
    may be this record's, though neither was made of the other; `tasks`: as they were kept last."""

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
    twin: int | None = None
    tasks: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be stored of one delivery. `apply`: values for the record, from `local` as it was loaded; a record is made of them when there was none.
    `gone`: the entity is not there any more; `instead`: the entity is of this record, whose own lane takes it from here; `twin`: it may be.
    `to_portal`: the last change went there. `tasks`: None when they were not asked for; `deals`: those that a task is about."""

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
    twin: tuple[RecordType, int] | None = None
    tasks: Sequence[Mapping[str, Any]] | None = None
    changed_at: float | None = None
    deals: Sequence[int] = ()

    @property
    def is_still(self) -> bool:
        """Whether a pair was found as it was left: there is nothing to store but that it was looked at."""
        is_same = self.known is not None and self.known == self.pair.known and self.pair.record_id is not None
        has_its_tasks = self.tasks is None or list(self.tasks) == list(self.pair.tasks)
        return is_same and has_its_tasks and not (self.apply or self.conflicts or self.to_portal or self.gone)


class SyncRoom(Protocol):
    """One enterprise's side of the sync."""

    async def load(self, batch: Sequence[Delivery]) -> Sequence[Pair]:
        """The pairs that deliveries are about, in order."""

    async def contracts(self, numbers: Sequence[str]) -> frozenset[str]:
        """Which of these contract numbers there are here."""

    async def unpaired(self, kind: RecordType, phones: Sequence[str], titles: Sequence[str]) -> Mapping[int, Signs]:
        """Records of a kind that have one of these numbers, or titles (`title_sign`), and are nobody's counterpart: by id, what they are known by."""

    async def taken(self, entity_type: str, ids: Sequence[int]) -> frozenset[int]:
        """Which of these entities are a record's already."""

    async def keep(self, batch: Sequence[Delivery], kept: Sequence[Kept]) -> Sequence[Outcome]:
        """Stores what became of them; an outcome that cannot be stored (a number that two contracts would have) becomes another. What failed is noted."""
