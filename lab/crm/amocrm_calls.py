"""Calls, incoming leads and popups of the sandbox."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lab.crm.amocrm_data import METADATA, UNSORTED, Errors, Item, call_errors, errors_of

if TYPE_CHECKING:
    from lab.crm.amocrm import AmoCrmSandbox

SINGULAR = {"contacts": "contact", "leads": "lead", "companies": "company", "customers": "customer"}


class Calls:
    """What is told of calls. `events`: the popups that were shown, oldest first."""

    def __init__(self, box: AmoCrmSandbox) -> None:
        self._box = box
        self.events: list[Item] = []

    def add_to(self, application: web.Application) -> None:
        add = application.router.add_route
        add("POST", "/api/v4/calls", self._calls)
        for path in ("/api/v2/events", "/api/v2/events/"):
            add("POST", path, self._event)
        add("POST", "/api/v4/leads/unsorted/sip", self._unsorted)
        add("GET", "/api/v4/leads/unsorted", self._list_unsorted)
        add("POST", "/api/v4/leads/unsorted/{uid}/accept", self._accept)

    def journal(self) -> list[str]:
        """The uniq of every call that is kept, with an entity or as an incoming lead."""
        noted = [note["params"]["uniq"] for note in self._box.account.calls()]
        return noted + [item["metadata"]["uniq"] for item in self._box.account.unsorted.values()]

    async def _calls(self, request: web.Request) -> web.Response:
        box = self._box
        items = await box.items(request)
        if isinstance(items, web.Response):
            return items
        wrong = [(_request_id(item, index), found) for index, item in enumerate(items) if (found := self._call_errors(item))]
        if wrong:
            return box.invalid(wrong)
        stored: list[Item] = []
        errors: list[Item] = []
        for index, item in enumerate(items):
            number = _request_id(item, index)
            place = box.account.place(item["phone"])
            if place is None:
                more = {"status": 263, "detail": "Entity not found by this phone number"} if box.switches.not_found_details else {}
                errors.append({"title": "Entity not found", **more, "request_id": number})
            else:
                stored.append(self._keep(item, *place, number))
        status = 400 if not stored else box.switches.mixed_status if errors else 200
        body = {"_total_items": len(stored), "errors": errors, "_embedded": {"calls": stored}}
        if status == 400:
            box.refusals.append("400 Entity not found")
            return box.problem(400, body)
        return box.answer(body)

    def _call_errors(self, item: Any) -> Errors:
        found = call_errors(item, nulls=self._box.switches.nulls_in_calls)
        users = [] if found else [name for name in ("responsible_user_id", "created_by") if item.get(name) and item[name] not in self._box.account.users]
        return found + [("NotSupportedChoice", name, "The value you selected is not a valid choice.") for name in users]

    def _keep(self, call: Item, kind: str, entity: Item, number: str) -> Item:
        """Twice the same uniq is two entries: nothing is recognised."""
        account = self._box.account
        params = {name: call[name] for name in ("uniq", "duration", "source", "phone", "link", "call_result", "call_status", "call_responsible")
                  if call.get(name) is not None}  # fmt: skip
        note = account.add("notes", {
            "entity_id": entity["id"], "entity_type": kind, "note_type": "call_in" if call["direction"] == "inbound" else "call_out", "params": params,
            "responsible_user_id": call.get("responsible_user_id") or entity["responsible_user_id"], "created_by": call.get("created_by") or 0,
            "created_at": call.get("created_at") or int(account.now()),
        })  # fmt: skip
        href = f"{self._box.url}/api/v4/{kind}/{entity['id']}"
        return {
            "id": note["id"], "entity_id": entity["id"], "entity_type": SINGULAR[kind], "account_id": account.id, "request_id": number,
            "_embedded": {"entity": {"id": entity["id"], "_links": {"self": {"href": href}}}},
        }  # fmt: skip

    async def _event(self, request: web.Request) -> web.Response:
        box = self._box
        try:
            body = await request.json()
        except ValueError:
            return box.refuse(400, "Invalid JSON")
        added = body.get("add") if isinstance(body, dict) and set(body) == {"add"} else None
        if not isinstance(added, list) or not added:
            return box.refuse(400, "Expected add")
        for item in added:
            if not isinstance(item, dict) or set(item) - {"type", "phone_number", "users"} or item.get("type") != "phone_call":
                return box.refuse(400, "Expected an event of type phone_call")
            users = item.get("users", [])
            if not isinstance(item.get("phone_number"), str) or not isinstance(users, list) or not all(str(user).isdecimal() for user in users):
                return box.refuse(400, "Expected phone_number and users")
            if any(int(user) not in box.account.users for user in users):
                return box.refuse(400, "User not found")
        self.events += added
        if not box.switches.event_body:
            return web.Response(status=202)
        shown = [{"element_id": 0, "element_type": 1, "uid": secrets.token_hex(8), "phone_number": item["phone_number"]} for item in added]
        return box.answer({"_links": {"self": {"href": "/api/v2/events", "method": "post"}}, "_embedded": {"items": shown}}, 202)

    async def _unsorted(self, request: web.Request) -> web.Response:
        box, account = self._box, self._box.account
        items = await box.items(request)
        if isinstance(items, web.Response):
            return items
        wrong = [(_request_id(item, index), found) for index, item in enumerate(items) if (found := _unsorted_errors(item))]
        if wrong:
            return box.invalid(wrong)
        made = []
        for index, item in enumerate(items):
            if any(known["metadata"]["uniq"] == item["metadata"]["uniq"] for known in account.unsorted.values()):
                return box.refuse(400, "This item was added already")
            uid = secrets.token_hex(8)
            account.unsorted[uid] = {**item, "uid": uid, "category": "sip", "account_id": account.id, "created_at": item.get("created_at")}
            links = {"contacts": [{"id": next(account.ids)}], "leads": [{"id": next(account.ids)}], "companies": []}
            made.append({"uid": uid, "account_id": account.id, "request_id": _request_id(item, index), "_embedded": links})
        return box.answer({"_total_items": len(made), "_links": {}, "_embedded": {"unsorted": made}})

    async def _list_unsorted(self, request: web.Request) -> web.Response:
        items = sorted(self._box.account.unsorted.values(), key=lambda item: -(item["created_at"] or 0))
        return self._box.page_of(request, "unsorted", items)

    async def _accept(self, request: web.Request) -> web.Response:
        """Somebody takes the incoming lead: contact and lead are real from now on, the call stands with the lead."""
        account = self._box.account
        item = account.unsorted.pop(request.match_info["uid"], None)
        if item is None:
            return self._box.refuse(404, "Not Found")
        contact = account.add("contacts", item["_embedded"]["contacts"][0])
        lead = account.lead(item["_embedded"]["leads"][0]["name"], contact["id"])
        params = {name: value for name, value in item["metadata"].items() if name in ("uniq", "duration", "link", "phone", "call_responsible")}
        account.add("notes", {"entity_id": lead["id"], "entity_type": "leads", "note_type": "call_in", "params": params})
        return self._box.answer({"uid": item["uid"], "_embedded": {"leads": [{"id": lead["id"]}], "contacts": [{"id": contact["id"]}]}})


def _unsorted_errors(item: Any) -> Errors:
    found = errors_of(item, UNSORTED, ("source_uid", "source_name", "metadata"))
    return found or errors_of(item["metadata"], METADATA, ("uniq", "phone", "called_at", "duration", "service_code"), "metadata.")


def _request_id(item: Any, index: int) -> str:
    found = item.get("request_id") if isinstance(item, dict) else None
    return str(found) if found is not None else str(index)
