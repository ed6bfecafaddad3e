"""Which record here and which entity there are the same, where neither was made by the sync (docs/adapters/bitrix24-sync.md). Pure.

A user and a contact, a company and a company are told by a phone that both have, companies by their title as well. They are joined only where nothing else
on either side could be meant; everything else is left apart, for a person to settle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.model.crm_record import RecordType
from daemon.model.phone import digits_of, to_e164
from daemon.model.phone_forms import forms_of

JOINED = (RecordType.USER, RecordType.COMPANY)  # what has a phone; a deal is known by the sync's own mark only


@dataclass(frozen=True, slots=True)
class Signs:
    """What one is known by: E.164 numbers, and a company's title as `title_sign` gives it."""

    phones: frozenset[str] = frozenset()
    title: str | None = None

    def share(self, other: Signs) -> bool:
        """Whether both could be the same."""
        return not self.phones.isdisjoint(other.phones) or (self.title is not None and self.title == other.title)

    def __bool__(self) -> bool:
        return bool(self.phones) or self.title is not None


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a record is joined with nothing: the entities it could be, and the other records that one of them could be."""

    entities: tuple[int, ...]
    records: tuple[int, ...]

    @property
    def reason(self) -> str:
        """In words, with what to do."""
        there = ", ".join(map(str, self.entities))
        if not self.records:
            return f"several at the portal have its phone or title ({there}): nothing was joined or made; join them there, then try again"
        here = ", ".join(map(str, self.records))
        return f"{there} at the portal has its phone or title, and so have others here ({here}): nothing was joined or made; tell them apart, then try again"


def title_sign(title: Any) -> str | None:
    """A title as it is compared: letters of either case, ё as е, blanks as one. None: there is none."""
    return " ".join(str(title).split()).lower().replace("ё", "е") or None if isinstance(title, str) else None


def signs_of_record(kind: RecordType, fields: Mapping[str, Any]) -> Signs:
    """A record's, by its `phone` and `name`."""
    phones = frozenset({str(fields["phone"])} if fields.get("phone") else ())
    return Signs(phones, title_sign(fields.get("name")) if kind is RecordType.COMPANY else None) if kind in JOINED else Signs()


def signs_of_entity(kind: RecordType, entity: Mapping[str, Any], country: str) -> Signs:
    """An entity's; every phone counts that can be understood in `country`."""
    if kind not in JOINED:
        return Signs()
    rows = entity.get("PHONE")
    written = [str(row.get("VALUE") or "") for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    phones = frozenset(number for one in written if (number := to_e164(one, country)) is not None)
    return Signs(phones, title_sign(entity.get("TITLE")) if kind is RecordType.COMPANY else None)


def pair_up(here: Mapping[int, Signs], there: Mapping[int, Signs]) -> tuple[dict[int, int], dict[int, Doubt]]:
    """Records by their entities, where each of the two shares a sign with the other alone; and the doubts about those which share more. A record that is
    in neither shares nothing with anybody."""
    entities = {record: tuple(sorted(one for one, signs in there.items() if mine.share(signs))) for record, mine in here.items()}
    records: dict[int, list[int]] = {}
    for record, several in entities.items():
        for one in several:
            records.setdefault(one, []).append(record)
    joined: dict[int, int] = {}
    doubts: dict[int, Doubt] = {}
    for record, several in entities.items():
        rivals = tuple(sorted({other for one in several for other in records[one]} - {record}))
        if len(several) == 1 and not rivals:
            joined[record] = several[0]
        elif several:
            doubts[record] = Doubt(several, rivals)
    return joined, doubts


def written_forms(number: str, country: str) -> Sequence[str]:
    """How a portal may have an E.164 number, besides punctuation: whole, and as it is dialled inside the country."""
    inside = {form for form in forms_of(number, country).written if not form.startswith("+") and len(form) < len(digits_of(number))}
    return [number, *sorted(inside)]
