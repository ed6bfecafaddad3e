"""Account, users, contacts, leads, tasks, notes and webhooks of the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from lab.crm.amocrm_data import CONTACT, LEAD, NOTE, NUMBERS, TASK, Errors, Item, errors_of, fields_errors, note_errors, phones

if TYPE_CHECKING:
    from lab.crm.amocrm import AmoCrmSandbox

KINDS = "{kind:contacts|leads|companies|customers}"
_ACTIONS = ("add", "update", "delete", "restore", "responsible", "note")
WEBHOOK_EVENTS = frozenset(f"{action}_{kind}" for kind in ("lead", "contact", "company", "customer", "task") for action in _ACTIONS) | {"status_lead"}


class Entities:
    """Everything but calls."""

    def __init__(self, box: AmoCrmSandbox) -> None:
        self._box = box

    def add_to(self, application: web.Application) -> None:
        add = application.router.add_route
        add("GET", "/api/v4/account", self._account)
        add("GET", "/api/v4/users", self._users)
        add("POST", "/api/v4/leads/complex", self._complex)
        add("GET", f"/api/v4/{KINDS}/notes", self._notes)
        add("GET", f"/api/v4/{KINDS}/{{id:[0-9]+}}/notes", self._notes)
        add("POST", f"/api/v4/{KINDS}/notes", self._add_notes)
        add("POST", f"/api/v4/{KINDS}/{{id:[0-9]+}}/notes", self._add_notes)
        add("PATCH", f"/api/v4/{KINDS}/notes", self._change_notes)
        add("GET", f"/api/v4/{KINDS}", self._list)
        add("GET", f"/api/v4/{KINDS}/{{id:[0-9]+}}", self._one)
        add("POST", "/api/v4/{kind:contacts|leads}", self._add)
        add("GET", "/api/v4/tasks", self._tasks)
        add("POST", "/api/v4/tasks", self._add_tasks)
        add("PATCH", "/api/v4/tasks", self._change_tasks)
        add("GET", "/api/v4/webhooks", self._webhooks)
        add("POST", "/api/v4/webhooks", self._subscribe)
        add("DELETE", "/api/v4/webhooks", self._unsubscribe)

    # -- the account -----------------------------------------------------------------------------------------------------------

    async def _account(self, _: web.Request) -> web.Response:
        account = self._box.account
        return self._box.answer(
            {
                "id": account.id, "name": "Sandbox", "subdomain": account.subdomain, "created_at": 1_700_000_000, "created_by": 0,
                "current_user_id": 7031001, "country": "BY", "currency": "BYN", "customers_mode": "segments" if self._box.switches.customers else "disabled",
                "is_unsorted_on": True, "is_technical_account": False, "contact_name_display_order": 1, "version": 11,
                "_links": {"self": {"href": f"{self._box.url}/api/v4/account"}},
            }
        )  # fmt: skip

    async def _users(self, request: web.Request) -> web.Response:
        if not self._box.switches.users_readable:
            return self._box.refuse(403, "Forbidden")
        return self._box.page_of(request, "users", [user.to_json() for user in self._box.account.users.values()])

    # -- contacts, leads, companies ----------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        kind, query, account = request.match_info["kind"], request.query, self._box.account
        if kind == "customers" and not self._box.switches.customers:
            return self._box.refuse(400, "Customers are switched off")
        found = [entity for entity in account.store(kind).values() if not entity["is_deleted"]]
        wanted = {value for name, value in query.items() if name.startswith("filter[id]")}
        if wanted:
            found = [entity for entity in found if str(entity["id"]) in wanted]
        if text := query.get("query"):
            found = [entity for entity in found if text in entity["name"] or any(text in phone for phone in phones(entity))]
        for field in ("id", "updated_at", "created_at"):
            if order := query.get(f"order[{field}]"):
                found.sort(key=lambda entity, field=field: entity[field], reverse=order == "desc")  # type: ignore[misc]
        linked = [name for name in query.get("with", "").split(",") if name]
        return self._box.page_of(request, kind, [self._shown(kind, entity, linked) for entity in found])

    async def _one(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        entity = self._box.account.store(kind).get(int(request.match_info["id"]))
        if entity is None:
            return self._box.refuse(404, "Not Found")
        return self._box.answer(self._shown(kind, entity, request.query.get("with", "").split(",")))

    def _shown(self, kind: str, entity: Item, linked: list[str]) -> Item:
        within: Item = {"tags": [], "companies": []}
        if kind == "contacts" and "leads" in linked:
            within["leads"] = [{"id": lead["id"]} for lead in self._box.account.leads_of(entity["id"])]
        if kind == "leads" and "contacts" in linked:
            within["contacts"] = [{"id": number, "is_main": True} for number in entity.get("contact_ids", ())]
        shown = {name: value for name, value in entity.items() if name != "contact_ids"}
        return {**shown, "_links": {"self": {"href": f"{self._box.url}/api/v4/{kind}/{entity['id']}"}}, "_embedded": within}

    async def _add(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        items = await self._valid(request, lambda item: self._entity_errors(kind, item))
        if isinstance(items, web.Response):
            return items
        made = [self._make(kind, item) for item in items]
        return self._box.answer({"_links": {}, "_embedded": {kind: [self._told(entity, item) for entity, item in zip(made, items, strict=True)]}})

    async def _complex(self, request: web.Request) -> web.Response:
        """A lead with its contact in one go; the answer is a bare array."""
        items = await self._valid(request, self._complex_errors)
        if isinstance(items, web.Response):
            return items
        answers = []
        for item in items:
            contact = self._box.account.add("contacts", item["_embedded"]["contacts"][0])
            lead = self._make("leads", {**item, "_embedded": {"contacts": [{"id": contact["id"]}]}})
            answers.append({"id": lead["id"], "contact_id": contact["id"], "company_id": None, "request_id": [item.get("request_id", "0")], "merged": False})
        return self._box.answer(answers)

    def _make(self, kind: str, item: Item) -> Item:
        entity = self._box.account.add(kind, item)
        if kind == "leads":
            entity["contact_ids"] = [contact["id"] for contact in item.get("_embedded", {}).get("contacts", ())]
        return entity

    def _told(self, entity: Item, item: Item) -> Item:
        return {"id": entity["id"], "is_deleted": False, "request_id": str(item.get("request_id", "0")), "_links": {}}

    def _entity_errors(self, kind: str, item: Any) -> Errors:
        found = errors_of(item, CONTACT if kind == "contacts" else LEAD) or fields_errors(item)
        if found:
            return found
        found = self._user_errors(item)
        for index, contact in enumerate(item.get("_embedded", {}).get("contacts", ()) if kind == "leads" else ()):
            if contact.get("id") not in self._box.account.contacts:
                found.append(("NotSupportedChoice", f"_embedded.contacts.{index}.id", "The value you selected is not a valid choice."))
        return found

    def _complex_errors(self, item: Any) -> Errors:
        found = errors_of(item, LEAD, ("_embedded",)) or self._user_errors(item)
        if found:
            return found
        contacts = item["_embedded"].get("contacts")
        if not isinstance(contacts, list) or len(contacts) != 1:
            return [("InvalidValue", "_embedded.contacts", "This collection should contain exactly one element.")]
        return errors_of(contacts[0], CONTACT, path="_embedded.contacts.0.") or fields_errors(contacts[0]) or self._user_errors(contacts[0])

    def _user_errors(self, item: Item) -> Errors:
        wrong = [name for name in ("responsible_user_id", "created_by") if item.get(name) and item[name] not in self._box.account.users]
        return [("NotSupportedChoice", name, "The value you selected is not a valid choice.") for name in wrong]

    # -- notes -------------------------------------------------------------------------------------------------------------------

    async def _notes(self, request: web.Request) -> web.Response:
        kind, query = request.match_info["kind"], request.query
        if kind == "customers" and not self._box.switches.customers:
            return self._box.refuse(400, "Customers are switched off")
        types = {value for name, value in query.items() if name.startswith("filter[note_type]")}
        since, entity = int(query.get("filter[updated_at][from]", "0")), request.match_info.get("id")
        found = [
            note
            for note in self._box.account.notes.values()
            if note["entity_type"] == kind and (not types or note["note_type"] in types) and note["updated_at"] >= since
            and (entity is None or note["entity_id"] == int(entity))
        ]  # fmt: skip
        shown = [{name: value for name, value in note.items() if name not in ("entity_type", "name", "custom_fields_values")} for note in found]
        return self._box.page_of(request, "notes", shown)

    async def _add_notes(self, request: web.Request) -> web.Response:
        kind, number = request.match_info["kind"], request.match_info.get("id")
        items = await self._valid(request, lambda item: self._note_errors(kind, item, number))
        if isinstance(items, web.Response):
            return items
        made = [self._box.account.add("notes", {**item, "entity_id": int(number or item["entity_id"]), "entity_type": kind}) for item in items]
        told = [{**self._told(note, item), "entity_id": note["entity_id"]} for note, item in zip(made, items, strict=True)]
        return self._box.answer({"_links": {}, "_embedded": {"notes": told}})

    async def _change_notes(self, request: web.Request) -> web.Response:
        kind, notes = request.match_info["kind"], self._box.account.notes
        items = await self._valid(request, lambda item: errors_of(item, NOTE, ("id",)) or ([] if item["note_type"] == "common" else note_errors(item)))
        if isinstance(items, web.Response):
            return items
        if any(item["id"] not in notes or notes[item["id"]]["entity_type"] != kind for item in items):
            return self._box.refuse(404, "Note not found")
        for item in items:
            notes[item["id"]] |= {"params": item["params"], "updated_at": int(self._box.account.now())}
        return self._box.answer({"_embedded": {"notes": [{"id": item["id"]} for item in items]}})

    def _note_errors(self, kind: str, item: Any, number: str | None) -> Errors:
        found = note_errors(item)
        if found:
            return found
        if int(number or item.get("entity_id") or 0) not in self._box.account.store(kind):
            return [("NotSupportedChoice", "entity_id", "The value you selected is not a valid choice.")]
        return self._user_errors(item)

    # -- tasks -------------------------------------------------------------------------------------------------------------------

    async def _tasks(self, request: web.Request) -> web.Response:
        query = request.query
        kind = query.get("filter[entity_type]")
        numbers = {value for name, value in query.items() if name.startswith("filter[entity_id]")}
        found = [
            task for task in self._box.account.tasks.values()
            if (kind is None or task["entity_type"] == kind) and (not numbers or str(task["entity_id"]) in numbers)
        ]  # fmt: skip
        return self._box.page_of(request, "tasks", found)

    async def _add_tasks(self, request: web.Request) -> web.Response:
        items = await self._valid(request, self._task_errors)
        if isinstance(items, web.Response):
            return items
        made = [self._box.account.add("tasks", {"is_completed": False, "result": {}, **item}) for item in items]
        return self._box.answer({"_links": {}, "_embedded": {"tasks": [self._told(task, item) for task, item in zip(made, items, strict=True)]}})

    async def _change_tasks(self, request: web.Request) -> web.Response:
        items = await self._valid(request, lambda item: errors_of(item, TASK, ("id",)))
        if isinstance(items, web.Response):
            return items
        tasks = self._box.account.tasks
        if any(item["id"] not in tasks for item in items):
            return self._box.refuse(404, "Task not found")
        for item in items:
            tasks[item["id"]] |= item
        return self._box.answer({"_embedded": {"tasks": [{"id": item["id"]} for item in items]}})

    def _task_errors(self, item: Any) -> Errors:
        found = errors_of(item, TASK, ("text", "complete_till")) or self._user_errors(item)
        if not found and item.get("entity_type") is not None:
            if item["entity_type"] not in NUMBERS:
                return [("NotSupportedChoice", "entity_type", "The value you selected is not a valid choice.")]
            if item.get("entity_id") not in self._box.account.store(item["entity_type"]):
                return [("NotSupportedChoice", "entity_id", "The value you selected is not a valid choice.")]
        return found

    # -- webhooks ----------------------------------------------------------------------------------------------------------------

    async def _webhooks(self, request: web.Request) -> web.Response:
        return self._box.page_of(request, "webhooks", list(self._box.account.webhooks.values()))

    async def _subscribe(self, request: web.Request) -> web.Response:
        body = await request.json()
        known = self._box.account.webhooks
        found = errors_of(body, {"destination": "text", "settings": "list", "sort": "number"}, ("destination", "settings"))
        if not found and not set(body["settings"]) <= WEBHOOK_EVENTS:
            found = [("NotSupportedChoice", "settings", "The value you selected is not a valid choice.")]
        if found:
            return self._box.invalid([("0", found)])
        item = {"id": next(self._box.account.ids), "destination": body["destination"], "settings": body["settings"], "disabled": False}
        known[body["destination"]] = item
        return self._box.answer(item, 201)

    async def _unsubscribe(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self._box.account.webhooks.pop(body.get("destination"), None) is None:
            return self._box.refuse(404, "Webhook not found")
        return web.Response(status=204)

    async def tell(self, event: str, kind: str, action: str, fields: dict[str, Any]) -> list[int]:
        """Something changed in the account: every subscriber is told; gives the answers' statuses."""
        form = {f"{kind}[{action}][0][{name}]": str(value) for name, value in fields.items()}
        form |= {"account[id]": str(self._box.account.id), "account[subdomain]": self._box.account.subdomain}
        statuses = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), trust_env=False) as session:
            for hook in self._box.account.webhooks.values():
                if event in hook["settings"]:
                    headers = {"Content-Type": "application/x-www-form-urlencoded"}
                    async with session.post(hook["destination"], data=urlencode(form), headers=headers) as answer:
                        statuses.append(answer.status)
        return statuses

    async def _valid(self, request: web.Request, check: Any) -> list[Any] | web.Response:
        items = await self._box.items(request)
        if isinstance(items, web.Response):
            return items
        wrong = [(str(item.get("request_id", index)) if isinstance(item, dict) else str(index), found)
                 for index, item in enumerate(items) if (found := check(item))]  # fmt: skip
        return self._box.invalid(wrong) if wrong else items
