"""What a record of ours is at the portal, both ways (docs/adapters/bitrix24-sync.md). Pure.

Between the two stands a view: the fields that both sides have, in values that both can have. A user, a company, a contract and an object are seen as in
`VIEW`; there `contract` is the contract's number and `company` the portal's company. A field that is missing from a view is not known, so nobody's
value is changed by it; one that is None is known to be empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from adapters.bitrix24.sync_comments import Wording, read_block, with_block
from daemon.model.crm_record import RecordType
from daemon.model.phone import to_e164

View = Mapping[str, Any]
Entity = Mapping[str, Any]

ORIGINATOR = "vochid"  # ORIGINATOR_ID: whose identifiers ORIGIN_ID are; contacts, companies and deals have both
ENTITY: Mapping[RecordType, str] = {
    RecordType.USER: "contact",
    RecordType.COMPANY: "company",
    RecordType.CONTRACT: "deal",
    RecordType.OBJECT: "deal",
}
VIEW: Mapping[RecordType, tuple[str, ...]] = {
    RecordType.USER: ("name", "email", "phone", "role"),
    RecordType.COMPANY: ("name", "phone"),
    RecordType.CONTRACT: ("number", "starts_on", "ends_on", "company"),
    RecordType.OBJECT: ("name", "description", "imei", "type", "contract", "company"),
}
OUT_ONLY: Mapping[RecordType, frozenset[str]] = {RecordType.OBJECT: frozenset({"company"})}  # an object's company is its contract's
REQUIRED = frozenset({"name", "number"})
MAX_TEXT = 10_000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else a record's entity is made of: when it was made and last changed here (Unix seconds), the enterprise's zone and country (ISO 3166),
    and the language of the block in COMMENTS."""

    created_at: float
    updated_at: float
    timezone: str = "UTC"
    country: str = "BY"
    wording: Wording = Wording.RU


def origin(enterprise: str, kind: RecordType, record_id: int) -> str:
    """ORIGIN_ID of a record: the same for every attempt to make it."""
    return f"{enterprise}:{kind}:{record_id}"


def read_origin(entity: Entity, enterprise: str) -> tuple[RecordType, int] | None:
    """Which record of this enterprise an entity was made of."""
    parts = _text(entity.get("ORIGIN_ID")).split(":")
    if entity.get("ORIGINATOR_ID") != ORIGINATOR or len(parts) != 3 or parts[0] != enterprise:
        return None
    kind, number = parts[1], parts[2]
    is_id = number.isascii() and number.isdecimal() and len(number) < 19
    return (RecordType(kind), int(number)) if is_id and kind in {str(one) for one in RecordType} else None


def kind_of(entity_type: str, entity: Entity) -> RecordType:
    """What an entity that nobody here knows becomes: a deal is an object, unless its block says that it is a contract."""
    if entity_type != "deal":
        return RecordType.USER if entity_type == "contact" else RecordType.COMPANY
    block = read_block(_text(entity.get("COMMENTS")))
    return RecordType.CONTRACT if block is not None and "number" in block else RecordType.OBJECT


# -- to the portal -----------------------------------------------------------------------------------------------------------------


def to_portal(kind: RecordType, view: View, fields: Sequence[str], there: Entity, around: Surroundings, agreed: View | None = None) -> dict[str, Any]:
    """The portal's fields for those of `view` that are named. `there`: the entity as it is, empty for a new one; what people wrote around our block, and
    phones and addresses that are not ours, stay as they are."""
    sent: dict[str, Any] = {}
    for name in fields:
        value = view.get(name)
        match name:
            case "name" if kind is RecordType.USER:
                first, _, rest = _text(value).partition(" ")
                sent |= {"NAME": first, "LAST_NAME": rest}
            case "name" | "contract" if kind is RecordType.OBJECT:
                sent["TITLE"] = _title(view)
            case "name" | "number":
                sent["TITLE"] = _text(value)
            case "phone" | "email":
                sent[name.upper()] = _one_of_many(name, value, there, (agreed or {}).get(name), around.country)
            case "starts_on":
                sent["BEGINDATE"] = value or ""
            case "ends_on":
                sent["CLOSEDATE"] = value or ""
            case "company":
                sent["COMPANY_ID"] = value or ""
    if kind is not RecordType.COMPANY and fields:
        sent["COMMENTS"] = with_block(_text(there.get("COMMENTS")), _block(kind, view, around), around.wording)
    return sent


def _title(view: View) -> str:
    return f"{_text(view.get('name'))} ({view['contract']})" if view.get("contract") else _text(view.get("name"))


def _block(kind: RecordType, view: View, around: Surroundings) -> dict[str, str]:
    values = {
        RecordType.USER: {"role": view.get("role"), "created": _day(around.created_at, around), "updated": _day(around.updated_at, around)},
        RecordType.CONTRACT: {"number": view.get("number"), "starts_on": view.get("starts_on"), "ends_on": view.get("ends_on")},
        RecordType.OBJECT: {name: view.get(name) for name in ("contract", "imei", "type", "description")},
    }[kind]
    return {name: str(value) for name, value in values.items() if value is not None}


def _day(at: float, around: Surroundings) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(around.timezone)).isoformat(" ", "minutes")


def _one_of_many(name: str, value: Any, there: Entity, agreed: Any, country: str) -> list[dict[str, str]]:
    """A multiple field: the one value that is ours is changed by its ID, which is also how it is cleared. A phone that nobody here understands, and that was
    never agreed on, is not ours."""
    ours = _ours(name, there, agreed, country)
    if ours is not None and (name != "phone" or agreed is not None or to_e164(_line(ours.get("VALUE")), country) is not None):
        return [{"ID": _text(ours.get("ID")), "VALUE": _text(value), "VALUE_TYPE": _text(ours.get("VALUE_TYPE")) or "WORK"}]
    return [{"VALUE": _text(value), "VALUE_TYPE": "WORK"}] if value else []


# -- from the portal ---------------------------------------------------------------------------------------------------------------


def from_portal(kind: RecordType, entity: Entity, agreed: View, country: str) -> dict[str, Any]:
    """An entity's view. `agreed`: what both sides had last, or what is here where they never agreed: by it the one phone and the one address that are
    ours are found."""
    comments = read_block(_text(entity.get("COMMENTS")))
    block: Mapping[str, str] = comments or {}
    seen: dict[str, Any] = {}
    match kind:
        case RecordType.USER:
            seen = {"name": " ".join(f"{_text(entity.get('NAME'))} {_text(entity.get('LAST_NAME'))}".split()), **_reached(entity, agreed, country)}
            seen |= {"email": _multi("email", entity, agreed, country)} if "EMAIL" in entity or entity.get("HAS_EMAIL") == "N" else {}
            seen |= {"role": block.get("role")} if comments is not None else {}
        case RecordType.COMPANY:
            seen = {"name": _line(entity.get("TITLE")), **_reached(entity, agreed, country)}
        case RecordType.CONTRACT:
            seen = {"number": _line(entity.get("TITLE")), "company": _id(entity.get("COMPANY_ID"))}
            seen |= {name: _date(entity[key]) for name, key in (("starts_on", "BEGINDATE"), ("ends_on", "CLOSEDATE")) if key in entity}
        case RecordType.OBJECT:
            seen = _titled(_line(entity.get("TITLE")), block.get("contract"))
            if comments is not None:
                seen |= {name: block.get(name) for name in ("description", "imei", "type")}
    return {name: value for name, value in seen.items() if value or name not in REQUIRED}


def new_contract(title: str) -> tuple[str, str] | None:
    """A title's name and the contract that its end may name: "Tractor (7/26)". Whether there is one, who has the contracts knows."""
    name, bracket, rest = title.rpartition(" (")
    return (name, rest[:-1]) if bracket and name and rest.endswith(")") and len(rest) > 1 else None


def _titled(title: str, contract: str | None) -> dict[str, Any]:
    """The block says which contract the title's end names, so that a name may end in brackets as well; what people make of the title is the
    name, or another contract where one of that number exists (`maybe`)."""
    suffix = f" ({contract})" if contract else ""
    if suffix and title.endswith(suffix) and len(title) > len(suffix):
        return {"name": title[: -len(suffix)], "contract": contract}
    named = new_contract(title)
    return {"name": title, **({"maybe": named} if named is not None else {}), **({"contract": None} if contract is None else {})}


def _reached(entity: Entity, agreed: View, country: str) -> dict[str, Any]:
    """The phone, where it can be understood: one that no number can be made of changes nothing here."""
    if "PHONE" not in entity and entity.get("HAS_PHONE") != "N":
        return {}
    written = _multi("phone", entity, agreed, country)
    number = to_e164(written, country) if written else None
    return {"phone": number} if number is not None or not written else {}


def _multi(name: str, entity: Entity, agreed: View, country: str) -> str | None:
    ours = _ours(name, entity, agreed.get(name), country)
    return _line(ours.get("VALUE")) or None if ours is not None else None


def _ours(name: str, entity: Entity, agreed: Any, country: str) -> Entity | None:
    """Of several phones or addresses, the one that both sides had; else the first."""
    several = entity.get(name.upper())
    rows = [row for row in several if isinstance(row, Mapping)] if isinstance(several, list) else []
    same = (row for row in rows if agreed and agreed in (_line(row.get("VALUE")), to_e164(_line(row.get("VALUE")), country)))
    return next(same, rows[0] if rows else None)


def modified_at(entity: Entity) -> float | None:
    """DATE_MODIFY in Unix seconds; the portal tells whole seconds."""
    try:
        at = datetime.fromisoformat(_text(entity.get("DATE_MODIFY")))
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo is not None else None


def _date(value: Any) -> str | None:
    """The portal gives a date as a time at which it begins there."""
    try:
        return date.fromisoformat(_text(value)[:10]).isoformat()
    except ValueError:
        return None


def _id(value: Any) -> str | None:
    text = _text(value)
    return text if text.isascii() and text.isdecimal() and text.strip("0") else None


def _line(value: Any) -> str:
    return " ".join(_text(value).split())


def _text(value: Any) -> str:
    """A scalar as text; NUL cannot be stored, and nothing here is longer than MAX_TEXT."""
    return str(value).replace("\0", "")[:MAX_TEXT] if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
