"""Contacts and leads by phone. The search is over text, so spellings are tried and digits are compared here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import phonenumbers

from adapters.amocrm.client import Accepted, AmoClient, Answer
from daemon.model.phone import digits_of, to_e164

COMPARED_DIGITS = 10  # as amoCRM itself compares for /calls
CLOSED = (142, 143)  # won and lost, in every pipeline
MAX_LEADS = 50

PLURALS = {"1": "contacts", "2": "leads", "3": "companies", "12": "customers"}


@dataclass(frozen=True, slots=True)
class Found:
    """A contact with its active leads, newest first."""

    contact: Mapping[str, Any]
    leads: Sequence[Mapping[str, Any]]


def plural(entity_type: Any) -> str:
    """`entity_type` as paths name it: answers have it in the singular, in the plural, or as a number. Pure."""
    text = str(entity_type or "")
    if text in PLURALS:
        return PLURALS[text]
    return {"contact": "contacts", "lead": "leads", "company": "companies", "customer": "customers"}.get(text, text)


def spellings(phone: str) -> list[str]:
    """What to search for: the digits that count, then as people write the number. Pure."""
    digits = digits_of(phone)
    found = [digits[-COMPARED_DIGITS:]]
    try:
        parsed = phonenumbers.parse(phone if phone.startswith("+") else f"+{digits}", None)
        if phonenumbers.is_possible_number(parsed):
            written = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
            # `8 (029) 625-40-70` and `+375 29 625-40-70` have only the subscriber's own groups in common.
            found.append(written.split(" ")[-1])
    except phonenumbers.NumberParseException:
        pass
    return [text for text in dict.fromkeys(found) if len(text) >= 3]


def has_phone(entity: Mapping[str, Any], phone: str, country: str) -> bool:
    """Whether one of its phones is this E.164 number: by its last ten digits, or as it is read in `country`. Pure."""
    wanted = digits_of(phone)[-COMPARED_DIGITS:]
    return bool(wanted) and any(digits_of(value)[-COMPARED_DIGITS:] == wanted or to_e164(value, country) == phone for value in phones(entity))


def phones(entity: Mapping[str, Any]) -> list[str]:
    """The values of the field PHONE; `custom_fields_values` is null when there are none. Pure."""
    fields = entity.get("custom_fields_values")
    found: list[str] = []
    for field in fields if isinstance(fields, list) else []:
        if isinstance(field, Mapping) and field.get("field_code") == "PHONE":
            values = field.get("values")
            found += [str(value.get("value") or "") for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []
    return found


def user_id(entity: Mapping[str, Any]) -> int | None:
    """Who is responsible for it."""
    found = entity.get("responsible_user_id")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


async def contacts_of(client: AmoClient, phone: str, country: str) -> list[Mapping[str, Any]] | Answer:
    """The contacts with this number, oldest first; or what went wrong."""
    for text in spellings(phone):
        answer = await client.get("api/v4/contacts", {"query": text, "with": "leads", "limit": "50", "order[id]": "asc"})
        if not isinstance(answer, Accepted):
            return answer
        if found := [contact for contact in answer.listed("contacts") if has_phone(contact, phone, country) and not contact.get("is_deleted")]:
            return sorted(found, key=lambda contact: int(contact["id"]))
    return []


async def look_for(client: AmoClient, phone: str, country: str) -> Found | Answer | None:
    """The customer of a number: the oldest contact that has an active lead, else the oldest; None when nobody is known."""
    contacts = await contacts_of(client, phone, country)
    if not isinstance(contacts, list):
        return contacts
    if not contacts:
        return None
    owners = {str(lead["id"]): contact for contact in reversed(contacts) for lead in linked(contact, "leads") if lead.get("id") is not None}
    if not owners:
        return Found(contacts[0], ())
    newest = sorted(owners, key=lambda number: -int(number))[:MAX_LEADS]
    answer = await client.get("api/v4/leads", {**{f"filter[id][{index}]": number for index, number in enumerate(newest)}, "limit": str(MAX_LEADS)})
    if not isinstance(answer, Accepted):
        return answer
    active = [lead for lead in answer.listed("leads") if lead.get("status_id") not in CLOSED and not lead.get("is_deleted") and str(lead.get("id")) in owners]
    active.sort(key=lambda lead: (int(lead.get("updated_at") or 0), int(lead["id"])), reverse=True)
    for contact in contacts:
        if mine := [lead for lead in active if owners[str(lead["id"])] is contact]:
            return Found(contact, mine)
    return Found(contacts[0], ())


def linked(entity: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """What an entity is linked with, where it was asked for."""
    within = entity.get("_embedded")
    items = within.get(name) if isinstance(within, Mapping) else None
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def new_contact(name: str, phone: str | None, responsible: int | None) -> dict[str, Any]:
    """A contact to be made. Pure."""
    contact: dict[str, Any] = {"name": name[:250]}
    if phone:
        contact["custom_fields_values"] = [{"field_code": "PHONE", "values": [{"value": phone, "enum_code": "WORK"}]}]
    return contact | ({"responsible_user_id": responsible} if responsible is not None else {})
