"""What an amoCRM account holds, and what is wrong with an item that is sent to it. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Item = dict[str, Any]
WON, LOST = 142, 143
NUMBERS = {"contacts": 1, "leads": 2, "companies": 3, "customers": 12}


def digits(text: Any) -> str:
    return "".join(character for character in str(text or "") if character in "0123456789")


@dataclass
class AmoUser:
    """A person of the account."""

    id: int
    name: str
    active: bool = True
    is_admin: bool = False

    def to_json(self) -> Item:
        rights = {"leads": {"view": "A"}, "is_admin": self.is_admin, "is_free": False, "is_active": self.active, "group_id": None, "role_id": None}
        return {"id": self.id, "name": self.name, "email": f"user{self.id}@shop.example", "lang": "ru", "rights": rights}


@dataclass
class Account:
    """Users and everything that is kept by number; `now` is the account's clock."""

    now: Callable[[], float]
    id: int = 321
    subdomain: str = "sandbox"
    users: dict[int, AmoUser] = field(default_factory=dict)
    contacts: dict[int, Item] = field(default_factory=dict)
    leads: dict[int, Item] = field(default_factory=dict)
    companies: dict[int, Item] = field(default_factory=dict)
    customers: dict[int, Item] = field(default_factory=dict)
    tasks: dict[int, Item] = field(default_factory=dict)
    notes: dict[int, Item] = field(default_factory=dict)
    unsorted: dict[str, Item] = field(default_factory=dict)
    webhooks: dict[str, Item] = field(default_factory=dict)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1001))

    def store(self, kind: str) -> dict[int, Item]:
        """Contacts, leads, companies, customers, tasks or notes."""
        found: dict[int, Item] = getattr(self, kind)
        return found

    def add(self, kind: str, item: Mapping[str, Any]) -> Item:
        """A new entity with the account's own fields."""
        at = int(self.now())
        made: Item = {
            "id": next(self.ids), "name": "", "responsible_user_id": next(iter(self.users), 0), "group_id": 0, "created_by": 0, "updated_by": 0,
            "created_at": at, "updated_at": at, "is_deleted": False, "custom_fields_values": None, "account_id": self.id,
            **{key: value for key, value in item.items() if key not in ("_embedded", "request_id")},
        }  # fmt: skip
        if kind == "leads":
            made = {"status_id": 11, "pipeline_id": 1, "price": 0, **made}
        self.store(kind)[made["id"]] = made
        return made

    def contact(self, name: str, phone: str | None, user: int | None = None) -> Item:
        """A contact as a person enters it."""
        fields = [{"field_id": 408903, "field_name": "Phone", "field_code": "PHONE", "field_type": "multitext",
                   "values": [{"value": phone, "enum_id": 636721, "enum_code": "WORK"}]}]  # fmt: skip
        return self.add("contacts", {"name": name, "custom_fields_values": fields if phone else None, **({"responsible_user_id": user} if user else {})})

    def lead(self, name: str, contact: int, user: int | None = None, status: int = 11) -> Item:
        """A lead of a contact."""
        made = self.add("leads", {"name": name, "status_id": status, **({"responsible_user_id": user} if user else {})})
        made["contact_ids"] = [contact]
        return made

    def leads_of(self, contact: int) -> list[Item]:
        return [lead for lead in self.leads.values() if contact in lead.get("contact_ids", ()) and not lead["is_deleted"]]

    def place(self, phone: str) -> tuple[str, Item] | None:
        """Where a call goes: by the last ten digits; a single active lead goes before the contact."""
        wanted = digits(phone)[-10:]
        for kind in ("contacts", "companies"):
            for entity in self.store(kind).values():
                if wanted and not entity["is_deleted"] and any(digits(value)[-10:] == wanted for value in phones(entity)):
                    active = [lead for lead in self.leads_of(entity["id"]) if lead["status_id"] not in (WON, LOST)]
                    return ("leads", active[0]) if len(active) == 1 else (kind, entity)
        return None

    def calls(self) -> list[Item]:
        """Call notes, oldest first."""
        return [note for note in self.notes.values() if note["note_type"] in ("call_in", "call_out")]


def phones(entity: Mapping[str, Any]) -> list[str]:
    """The values of PHONE, as they were entered."""
    return [
        str(value["value"]) for each in entity.get("custom_fields_values") or [] if each.get("field_code") == "PHONE" for value in each.get("values", ())
    ]  # fmt: skip


def sample_account(now: Callable[[], float]) -> Account:
    """A small shop."""
    account = Account(now)
    for user in (AmoUser(7031001, "Анна Сидорова", is_admin=True), AmoUser(7031002, "Пётр Кот"), AmoUser(7031003, "Ольга Лис", active=False)):
        account.users[user.id] = user
    return account


# -- what is wrong with an item ----------------------------------------------------------------------------------------------------

Errors = list[tuple[str, str, str]]  # code, path, detail

NUMBER, TEXT, EITHER, FLAG, LIST, OBJECT = "number", "text", "either", "flag", "list", "object"
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    NUMBER: lambda value: isinstance(value, int) and not isinstance(value, bool),
    TEXT: lambda value: isinstance(value, str),
    EITHER: lambda value: isinstance(value, (int, str)) and not isinstance(value, bool),
    FLAG: lambda value: isinstance(value, bool),
    LIST: lambda value: isinstance(value, list),
    OBJECT: lambda value: isinstance(value, dict),
}

CALL = {
    "direction": TEXT, "duration": NUMBER, "source": TEXT, "phone": TEXT, "uniq": TEXT, "link": TEXT, "call_result": TEXT, "call_status": NUMBER,
    "call_responsible": EITHER, "responsible_user_id": NUMBER, "created_by": NUMBER, "updated_by": NUMBER, "created_at": NUMBER, "updated_at": NUMBER,
    "request_id": TEXT,
}  # fmt: skip
CALL_REQUIRED = ("direction", "duration", "source", "phone")
CALL_PARAMS = {name: CALL[name] for name in ("uniq", "duration", "source", "phone", "link", "call_result", "call_status", "call_responsible")}
NOTE = {
    "id": NUMBER, "entity_id": NUMBER, "note_type": TEXT, "params": OBJECT, "created_by": NUMBER, "updated_by": NUMBER, "responsible_user_id": NUMBER,
    "created_at": NUMBER, "updated_at": NUMBER, "request_id": TEXT, "is_need_to_trigger_digital_pipeline": FLAG,
}  # fmt: skip
CONTACT = {
    "name": TEXT, "first_name": TEXT, "last_name": TEXT, "responsible_user_id": NUMBER, "created_by": NUMBER, "updated_by": NUMBER, "created_at": NUMBER,
    "updated_at": NUMBER, "custom_fields_values": LIST, "tags_to_add": LIST, "_embedded": OBJECT, "request_id": TEXT,
}  # fmt: skip
LEAD = {
    "name": TEXT, "price": NUMBER, "status_id": NUMBER, "pipeline_id": NUMBER, "created_by": NUMBER, "updated_by": NUMBER, "closed_at": NUMBER,
    "created_at": NUMBER, "updated_at": NUMBER, "loss_reason_id": NUMBER, "responsible_user_id": NUMBER, "custom_fields_values": LIST, "_embedded": OBJECT,
    "request_id": TEXT,
}  # fmt: skip
TASK = {
    "id": NUMBER, "text": TEXT, "complete_till": NUMBER, "task_type_id": NUMBER, "entity_id": NUMBER, "entity_type": TEXT, "responsible_user_id": NUMBER,
    "is_completed": FLAG, "result": OBJECT, "duration": NUMBER, "created_by": NUMBER, "created_at": NUMBER, "updated_at": NUMBER, "request_id": TEXT,
}  # fmt: skip
UNSORTED = {
    "source_uid": TEXT, "source_name": TEXT, "pipeline_id": NUMBER, "created_at": NUMBER, "request_id": TEXT, "metadata": OBJECT, "_embedded": OBJECT,
}  # fmt: skip
METADATA = {
    "uniq": TEXT, "phone": TEXT, "from": TEXT, "called_at": NUMBER, "duration": NUMBER, "link": TEXT, "service_code": TEXT,
    "is_call_event_needed": FLAG, "call_responsible": EITHER,
}  # fmt: skip


def errors_of(item: Any, fields: Mapping[str, str], required: tuple[str, ...] = (), path: str = "", *, nulls: bool = False) -> Errors:
    """What is wrong with an item, by field. `nulls`: optional fields may be null."""
    if not isinstance(item, dict):
        return [("InvalidType", path.rstrip("."), "This value should be of type array.")]
    found: Errors = [("NotSupportedField", path + name, "This field is not supported.") for name in item if name not in fields]
    found += [("FieldMissing", path + name, "This field is missing.") for name in required if name not in item]
    for name, kind in fields.items():
        if name not in item:
            continue
        if item[name] is None:
            if not nulls or name in required:
                found.append(("NotNullable", path + name, "This value should not be null."))
        elif not _TYPES[kind](item[name]):
            found.append(("InvalidType", path + name, f"This value should be of type {kind}."))
    return found


def call_errors(call: Any, *, nulls: bool) -> Errors:
    """One item of POST /api/v4/calls."""
    found = errors_of(call, CALL, CALL_REQUIRED, nulls=nulls)
    if found:
        return found
    if call["direction"] not in ("inbound", "outbound"):
        found.append(("NotSupportedChoice", "direction", "The value you selected is not a valid choice."))
    if call.get("call_status") is not None and call["call_status"] not in range(1, 8):
        found.append(("NotSupportedChoice", "call_status", "The value you selected is not a valid choice."))
    if call["duration"] < 0:
        found.append(("InvalidValue", "duration", "This value should be positive."))
    return found


def note_errors(note: Any) -> Errors:
    """One note to be made."""
    found = errors_of(note, NOTE, ("note_type",))
    if found:
        return found
    if note["note_type"] in ("call_in", "call_out"):
        return errors_of(note.get("params"), CALL_PARAMS, ("uniq", "duration", "source", "phone"), "params.")
    if note["note_type"] == "common":
        return errors_of(note.get("params"), {"text": TEXT}, ("text",), "params.")
    return [("NotSupportedChoice", "note_type", "The value you selected is not a valid choice.")]


def fields_errors(item: Item) -> Errors:
    """custom_fields_values of a contact."""
    found: Errors = []
    for index, each in enumerate(item.get("custom_fields_values") or []):
        where = f"custom_fields_values.{index}."
        found += errors_of(each, {"field_code": TEXT, "field_id": NUMBER, "values": LIST}, ("values",), where)
        if isinstance(each, dict) and each.get("field_code", "PHONE") not in ("PHONE", "EMAIL"):
            found.append(("NotSupportedChoice", where + "field_id", "The value you selected is not a valid choice."))
    return found
