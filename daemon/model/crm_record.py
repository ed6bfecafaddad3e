"""An enterprise's own records: objects, contracts, users, companies. Pure.

A record is its fields: JSON values by name (dates as ISO 8601, phones as E.164), exactly those of `FIELDS`, absent ones None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Fields = Mapping[str, Any]
LOCAL = "local"  # who changed a field: people and programs of ours, or the integration's name


class RecordType(StrEnum):
    """The singular names, as mappings and outbox lanes have them."""

    OBJECT = "object"
    CONTRACT = "contract"
    USER = "user"
    COMPANY = "company"

    @property
    def plural(self) -> str:
        """As routes and tables have it."""
        return "companies" if self is RecordType.COMPANY else f"{self.value}s"

    @property
    def table(self) -> str:
        return f"crm_{self.plural}"

    @classmethod
    def of_plural(cls, plural: str) -> RecordType | None:
        """The type that a route names."""
        return next((one for one in cls if one.plural == plural), None)


FIELDS: Mapping[RecordType, tuple[str, ...]] = {
    RecordType.OBJECT: ("name", "description", "imei", "type", "contract_id"),
    RecordType.CONTRACT: ("number", "starts_on", "ends_on", "company_id"),
    RecordType.USER: ("name", "email", "phone", "role"),
    RecordType.COMPANY: ("name", "phone"),
}
REQUIRED: Mapping[RecordType, str] = {RecordType.OBJECT: "name", RecordType.CONTRACT: "number", RecordType.USER: "name", RecordType.COMPANY: "name"}
DATES = ("starts_on", "ends_on")
REFERENCES: Mapping[str, RecordType] = {"contract_id": RecordType.CONTRACT, "company_id": RecordType.COMPANY}  # field -> what it points at


@dataclass(frozen=True, slots=True)
class CrmRecord:
    """One stored record. `changes`: field -> {"at": Unix seconds, "by": LOCAL or an integration}. Times are Unix seconds."""

    type: RecordType
    id: int
    fields: Fields
    changes: Mapping[str, Mapping[str, Any]]
    created_at: float
    updated_at: float

    @property
    def title(self) -> str:
        """What a person knows it by."""
        return str(self.fields[REQUIRED[self.type]])


@dataclass(frozen=True, slots=True)
class KnownAs:
    """A user or company that a number belongs to."""

    type: RecordType
    id: int
    name: str


@dataclass(frozen=True, slots=True)
class RecordChange:
    """What became of a record in one transaction. `before` None: it was made; `after` None: it was deleted. `by`: as in `changes`."""

    type: RecordType
    id: int
    before: CrmRecord | None
    after: CrmRecord | None
    by: str

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields whose values differ."""
        old, new = (one.fields if one else {} for one in (self.before, self.after))
        return tuple(name for name in FIELDS[self.type] if old.get(name) != new.get(name))
