"""An order of another program: a contact, a lead and a note in amoCRM, each made once (docs/adapters/amocrm.md).

Three deliveries of one lane, so that each request has an answer of its own: what one made, the next finds in the lane's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.amocrm.client import Accepted, AmoClient, as_outcome, unseen
from adapters.amocrm.config import AmoCrmSettings
from adapters.amocrm.entities import contacts_of, new_contact
from daemon.model.delivery import Ambiguous, Delivered, Delivery, Kind, Outcome, Planned, Priority, Rejected, Retry

STEPS = ("contact", "lead", "note")


def plan_order(order: Mapping[str, Any]) -> Sequence[Planned]:
    """The steps of an order that inbound.read_order gave. Pure; keyed by its number, so that an order sent twice is made once."""
    steps = STEPS if order.get("note") else STEPS[:2]
    return [Planned(Kind.ORDER, f"order:{order['number']}:{step}", {"step": step, "order": dict(order)}, Priority.SYNC) for step in steps]


class Orders:
    """One delivery of kind ORDER."""

    def __init__(self, client: AmoClient, settings: AmoCrmSettings, country: str) -> None:
        self._client = client
        self._settings = settings
        self._country = country

    async def make(self, delivery: Delivery) -> Outcome:
        """Does this delivery's step."""
        order = delivery.payload["order"]
        match delivery.payload["step"]:
            case "contact":
                return await self._contact(order, delivery.id)
            case "lead":
                return await self._lead(order, delivery)
            case _:
                return await self._note(order, delivery)

    async def reconcile(self, delivery: Delivery) -> Outcome:
        """Whether the step was done: a contact is found by its phone, a lead by its name, a note by its text."""
        order, step = delivery.payload["order"], delivery.payload["step"]
        if step == "contact":
            if not order["contact"].get("phone"):
                return Ambiguous("a contact without a phone cannot be found again")
            return Retry("the contact is looked for before it is made", after_s=0)
        if step == "lead":
            return await self._find("api/v4/leads", {"query": str(order["number"])}, "leads", ("name",), lead_of(order, self._settings)["name"], "lead_id")
        path = f"api/v4/leads/{delivery.memory.get('lead_id')}/notes"
        return await self._find(path, {"filter[note_type][0]": "common"}, "notes", ("params", "text"), order["note"], "note_id")

    async def _contact(self, order: Mapping[str, Any], number: int) -> Outcome:
        contact = order["contact"]
        if phone := contact.get("phone"):
            found = await contacts_of(self._client, phone, self._country)
            if not isinstance(found, list):
                return as_outcome(found)
            if found:
                return Delivered("the contact was there", {"contact_id": found[0]["id"]})
        item = {**new_contact(contact.get("name") or phone, phone, None), "request_id": str(number)}
        if email := contact.get("email"):
            item.setdefault("custom_fields_values", []).append({"field_code": "EMAIL", "values": [{"value": email, "enum_code": "WORK"}]})
        return await self._post("api/v4/contacts", item, "contacts", "contact_id")

    async def _lead(self, order: Mapping[str, Any], delivery: Delivery) -> Outcome:
        contact = delivery.memory.get("contact_id")
        if contact is None:
            return Rejected("the order's contact was not made")
        item = {**lead_of(order, self._settings), "_embedded": {"contacts": [{"id": contact}]}, "request_id": str(delivery.id)}
        return await self._post("api/v4/leads", item, "leads", "lead_id")

    async def _note(self, order: Mapping[str, Any], delivery: Delivery) -> Outcome:
        lead = delivery.memory.get("lead_id")
        if lead is None:
            return Rejected("the order's lead was not made")
        item = {"entity_id": lead, "note_type": "common", "params": {"text": order["note"]}, "request_id": str(delivery.id)}
        return await self._post("api/v4/leads/notes", item, "notes", "note_id")

    async def _post(self, path: str, item: Mapping[str, Any], name: str, remembered: str) -> Outcome:
        answer = await self._client.post(path, [item])
        if not isinstance(answer, Accepted):
            return as_outcome(answer)
        made = answer.listed(name)
        return Delivered("", {remembered: made[0].get("id")}) if made else Ambiguous("amoCRM did not say what it made")

    async def _find(self, path: str, query: Mapping[str, str], name: str, field: Sequence[str], value: str, remembered: str) -> Outcome:
        answer = await self._client.get(path, {**query, "limit": "250", "order[id]": "desc"})
        if not isinstance(answer, Accepted):
            return unseen(answer)
        for item in answer.listed(name):
            found: Any = item
            for key in field:
                found = found.get(key) if isinstance(found, Mapping) else None
            if found == value:
                return Delivered("it had arrived", {remembered: item.get("id")})
        return Retry("it had not arrived", after_s=0)


def lead_of(order: Mapping[str, Any], settings: AmoCrmSettings) -> dict[str, Any]:
    """The order's lead; its name carries the order's number. Pure."""
    lead, number = order.get("lead") or {}, str(order["number"])
    title = lead.get("name") or ("Заказ" if settings.is_russian else "Order")
    made: dict[str, Any] = {"name": title if number in title else f"{title} {number}"}
    for name in ("price", "pipeline_id", "status_id", "responsible_user_id"):
        if lead.get(name) is not None:
            made[name] = lead[name]
    if "pipeline_id" not in made and settings.pipeline_id is not None:
        made["pipeline_id"] = settings.pipeline_id
    return made
