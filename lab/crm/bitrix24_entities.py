"""The portal's contacts, companies, leads and deals: add, update, get, list and delete as documented, and the events of it.

Facts: fields that do not exist are ignored; scalars come back as strings; a value of a multiple field is changed and cleared by its ID; `>ID`, `@ID` and the
like filter; `*` selects no multiple field; pages have 50; start=-1 counts nothing. Events carry the id and nothing else.
"""

from __future__ import annotations

import asyncio
import bisect
import random
import time
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import aiohttp

from lab.crm.bitrix24_data import Entity, Params, RestError, digits

if TYPE_CHECKING:
    from lab.crm.bitrix24 import Bitrix24Sandbox, Page

Method = Callable[[Params], Awaitable[Any]]
KINDS = {"contact": "CONTACT", "lead": "LEAD", "company": "COMPANY", "deal": "DEAL"}
CRM_EVENTS = tuple(f"ON{kind}{what}" for kind in ("CRMCONTACT", "CRMCOMPANY", "CRMDEAL", "TASK") for what in ("ADD", "UPDATE", "DELETE"))
MULTI = ("PHONE", "EMAIL")
ZONE = ZoneInfo("Europe/Minsk")
_COMMON = ("ASSIGNED_BY_ID", "COMMENTS", "SOURCE_ID", "ORIGINATOR_ID", "ORIGIN_ID", "OPENED")
FIELDS = {
    "CONTACT": (*_COMMON, "NAME", "SECOND_NAME", "LAST_NAME", "COMPANY_ID", "POST", "TYPE_ID"),
    "COMPANY": (*_COMMON, "TITLE", "COMPANY_TYPE"),
    "LEAD": (*_COMMON, "TITLE", "NAME", "LAST_NAME", "STATUS_ID", "COMPANY_ID"),
    "DEAL": (*_COMMON, "TITLE", "COMPANY_ID", "CONTACT_ID", "CONTACT_IDS", "STAGE_ID", "CATEGORY_ID", "OPPORTUNITY", "CURRENCY_ID", "BEGINDATE", "CLOSEDATE"),
}
_DATES = ("BEGINDATE", "CLOSEDATE")


class Entities:
    """The methods of one portal."""

    def __init__(self, box: Bitrix24Sandbox) -> None:
        self._box = box
        self.methods: dict[str, Method] = {}
        for name, kind in KINDS.items():
            self.methods |= {
                f"crm.{name}.add": self._bound(self._add, kind), f"crm.{name}.get": self._bound(self._get, kind),
                f"crm.{name}.update": self._bound(self._update, kind), f"crm.{name}.list": self._bound(self._list, kind),
                f"crm.{name}.delete": self._bound(self._delete, kind), f"crm.{name}.fields": self._bound(self._fields, kind),
            }  # fmt: skip

    @staticmethod
    def _bound(method: Callable[[str, Params], Any], kind: str) -> Method:
        async def call(params: Params) -> Any:
            return method(kind, params)

        return call

    # -- methods -------------------------------------------------------------------------------------------------------------------

    def _add(self, kind: str, params: Params) -> int:
        fields = _given(params)
        names = [str(fields[key]) for key in ("TITLE", "NAME", "LAST_NAME") if fields.get(key)]
        if not names and kind != "DEAL":
            raise RestError(400, "", 'The field "TITLE" is required' if kind != "CONTACT" else 'The field "NAME" is required')
        assigned = str(fields.get("ASSIGNED_BY_ID") or self._box.webhook_user)
        _check_multi(fields)
        entity = self._box.data.add_entity(kind, " ".join(names) or "Сделка", [], assigned, {})
        if kind == "DEAL":
            today = datetime.now(ZONE).date()
            defaults = {"BEGINDATE": today.isoformat(), "CLOSEDATE": (today + timedelta(days=7)).isoformat()} if self._box.switches.default_dates else {}
            fields = {"TITLE": f"Сделка #{entity.id}", **defaults, **fields}
        self._write(entity, fields)
        self._box.data.touch(entity, is_new=True)
        self._box.tell(f"ONCRM{kind}ADD", entity.id)
        return entity.id

    def _update(self, kind: str, params: Params) -> bool:
        entity = self._found(kind, params)
        fields = _given(params)
        _check_multi(fields)
        entity.before = self.shown(entity)
        self._write(entity, fields)
        self._box.data.touch(entity)
        self._box.tell(f"ONCRM{kind}UPDATE", entity.id)
        return True

    def _get(self, kind: str, params: Params) -> dict[str, Any]:
        return self._read(self._found(kind, params))

    def _delete(self, kind: str, params: Params) -> bool:
        entity = self._found(kind, params)
        self._box.data.remove_entity(entity)
        self._box.tell(f"ONCRM{kind}DELETE", entity.id)
        return True

    def _fields(self, kind: str, _: Params) -> dict[str, Any]:
        return {name: {"type": "string", "isReadOnly": False} for name in (*FIELDS[kind], *(MULTI if kind != "DEAL" else ()))}

    def _list(self, kind: str, params: Params) -> Page:
        wanted = params.get("filter", {})
        if not isinstance(wanted, dict):
            raise RestError(400, "", "Parameter 'filter' must be array.")
        order = {str(key).upper(): str(value).upper() for key, value in (params.get("order") or {"ID": "ASC"}).items()}
        select = [str(one) for one in (params.get("select") or ["*"])]
        rows = self._matching(kind, {str(key).upper(): value for key, value in wanted.items()})
        if order.get("ID") == "DESC":
            rows = rows[::-1]
        page = self._box.page(rows, params)
        page.rows = [self._selected(entity, select) for entity in page.rows]
        return page

    # -- inside --------------------------------------------------------------------------------------------------------------------

    def _read(self, entity: Entity) -> dict[str, Any]:
        """As it is, or as a copy that lags still has it."""
        if self._box.switches.stale_reads > 0 and entity.before is not None:
            self._box.switches.stale_reads -= 1
            return entity.before
        return self.shown(entity)

    def _found(self, kind: str, params: Params) -> Entity:
        number = params.text("id")
        if not number.isdecimal():
            raise RestError(400, "", "ID is not defined or invalid.")
        entity = self._box.data.entities.get((kind, int(number)))
        if entity is None:
            raise RestError(400, "", "Not found")
        return entity

    def _matching(self, kind: str, wanted: dict[str, Any]) -> list[Entity]:
        data = self._box.data
        if (origins := wanted.get("@ORIGIN_ID", wanted.get("ORIGIN_ID"))) is not None:
            ids = sorted(one for origin in _several(origins) for one in data.by_origin.get((kind, str(origin)), []))
        elif "@ID" in wanted:
            named = {int(one) for one in _several(wanted["@ID"]) if str(one).isdecimal()}
            ids = sorted(one for one in named if (kind, one) in data.entities)
            wanted = {key: value for key, value in wanted.items() if key != "@ID"}
        else:
            every = data.ids[kind]
            after = wanted.get(">ID")
            ids = every[bisect.bisect_right(every, int(after)) :] if after not in (None, "") else every
        found = (data.entities[kind, one] for one in ids)
        return [entity for entity in found if all(self._fits(entity, key, value) for key, value in wanted.items())]

    def _fits(self, entity: Entity, key: str, value: Any) -> bool:
        name = key.lstrip("<>=@!%")
        sign = key[: len(key) - len(name)]
        if name == "ID":
            held: Any = entity.id
            value = [int(one) for one in value] if isinstance(value, list) else int(value or 0)
        elif name == "DATE_MODIFY":
            held, value = datetime.fromisoformat(entity.fields["DATE_MODIFY"]), datetime.fromisoformat(str(value))
        elif name in MULTI:
            return any(row["VALUE"] == str(value) for row in entity.multi.get(name, []))
        elif name in FIELDS[entity.kind]:
            held = str(entity.fields.get(name) or "").casefold()  # texts are the same in either case
            value = [str(one).casefold() for one in value] if isinstance(value, list) else str(value).casefold()
        else:
            return True  # what it cannot filter by is ignored
        match sign:
            case ">":
                return bool(held > value)
            case ">=":
                return bool(held >= value)
            case "<":
                return bool(held < value)
            case "<=":
                return bool(held <= value)
            case "!":
                return bool(held != value)
            case _:
                return held in value if isinstance(value, list) else bool(held == value)

    def _write(self, entity: Entity, fields: dict[str, Any]) -> None:
        switches = self._box.switches
        for name, value in fields.items():
            if name in MULTI and entity.kind != "DEAL":
                self._write_multi(entity, name, value)
            elif name in _DATES and entity.kind == "DEAL":
                if value or switches.dates_clear:
                    entity.fields[name] = _a_date(value)
            elif name in FIELDS[entity.kind]:
                entity.fields[name] = "" if value is None else str(value) if not isinstance(value, list) else value
        names = [str(entity.fields[key]) for key in ("TITLE", "NAME", "LAST_NAME") if entity.fields.get(key)]
        entity.name = " ".join(names) or entity.name
        self._box.data.set_phones(entity, [digits(row["VALUE"]) for row in entity.multi.get("PHONE", [])] or entity.phones)
        if entity.fields.get("ORIGIN_ID"):
            ids = self._box.data.by_origin.setdefault((entity.kind, entity.fields["ORIGIN_ID"]), [])
            if entity.id not in ids:
                bisect.insort(ids, entity.id)

    def _write_multi(self, entity: Entity, name: str, rows: list[dict[str, Any]]) -> None:
        held = entity.multi.setdefault(name, [])
        for row in rows:
            value, number = str(row.get("VALUE") or "").strip(), str(row.get("ID") or "")
            there = next((one for one in held if one["ID"] == number), None) if number else None
            if there is not None and (not value or row.get("DELETE") == "Y"):
                held.remove(there)
            elif there is not None:
                there |= {"VALUE": value, "VALUE_TYPE": str(row.get("VALUE_TYPE") or there["VALUE_TYPE"])}
            elif value:
                held.append({"ID": str(self._box.data.new_id()), "VALUE_TYPE": str(row.get("VALUE_TYPE") or "WORK"), "VALUE": value, "TYPE_ID": name})
        if name == "PHONE":
            self._box.data.set_phones(entity, [digits(row["VALUE"]) for row in held])

    def shown(self, entity: Entity) -> dict[str, Any]:
        """As get gives it."""
        seen: dict[str, Any] = {"ID": str(entity.id), "ASSIGNED_BY_ID": entity.assigned}
        seen |= {name: None for name in FIELDS[entity.kind] if name not in ("CONTACT_IDS", "ASSIGNED_BY_ID")}
        seen |= {name: value for name, value in entity.fields.items() if name != "CONTACT_IDS"}
        if not entity.fields.get("NAME") and not entity.fields.get("TITLE"):
            seen["NAME" if entity.kind == "CONTACT" else "TITLE"] = entity.name
        for name in _DATES if entity.kind == "DEAL" else ():
            seen[name] = f"{seen[name]}T03:00:00+03:00" if seen.get(name) else ""
        if self._box.switches.html_comments and seen.get("COMMENTS"):
            seen["COMMENTS"] = str(seen["COMMENTS"]).replace("\n", "<br>\n")
        if entity.kind != "DEAL":
            phones = entity.multi.get("PHONE") or [
                {"ID": str(i), "VALUE": f"+{phone}", "VALUE_TYPE": "WORK", "TYPE_ID": "PHONE"} for i, phone in enumerate(entity.phones, 1)
            ]
            for name, rows in (("PHONE", phones), ("EMAIL", entity.multi.get("EMAIL", []))):
                seen[f"HAS_{name}"] = "Y" if rows else "N"
                if rows:
                    seen[name] = [dict(row) for row in rows]
        return seen

    def _selected(self, entity: Entity, select: list[str]) -> dict[str, Any]:
        seen = self._read(entity)
        if "*" in select:
            return {name: value for name, value in seen.items() if name not in MULTI or name in select}
        return {name: seen.get(name) for name in {*select, "ID"} if name in seen}


class EventQueue:
    """The portal's queue server: one event after the other, each once, whatever is answered; with delay, and out of order, where a switch says so."""

    def __init__(self, box: Bitrix24Sandbox) -> None:
        self._box = box
        self._waiting: list[tuple[float, str, int]] = []
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.sent = 0

    def put(self, event: str, entity_id: int) -> None:
        self._waiting.append((time.monotonic() + self._box.switches.event_delay_s, event, entity_id))
        self._woken.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def is_empty(self) -> bool:
        return not self._waiting and (self._task is None or self._task.done())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            place = random.randrange(len(self._waiting)) if self._box.switches.events_shuffled else 0
            due, event, entity_id = self._waiting.pop(place)
            if (wait_s := due - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            for handler in [where for what, where in self._box.data.handlers if what == event]:
                try:
                    await self._box.send(event, _told(event, entity_id), handler)
                except (OSError, aiohttp.ClientError):
                    continue
                self.sent += 1


def _told(event: str, number: int) -> dict[str, str]:
    """An event's data: the id; of a task the same before and after, with a word for what there is not."""
    if not event.startswith("ONTASK"):
        return {"FIELDS][ID": str(number)}
    there_is = {"FIELDS_BEFORE": not event.endswith("ADD"), "FIELDS_AFTER": not event.endswith("DELETE")}
    told = {(f"{name}][ID" if there else name): (str(number) if there else "undefined") for name, there in there_is.items()}
    return {**told, "IS_ACCESSIBLE_BEFORE": "undefined", "IS_ACCESSIBLE_AFTER": "undefined"}


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _given(params: Params) -> dict[str, Any]:
    fields = params.get("fields")
    if not isinstance(fields, dict):
        raise RestError(400, "", "Parameter 'fields' must be array.")
    return {str(name).upper(): value for name, value in fields.items()}


def _check_multi(fields: dict[str, Any]) -> None:
    for name in MULTI:
        rows = fields.get(name) or []
        fine = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
        if not fine or (name == "PHONE" and any(not digits(str(row.get("VALUE", ""))) and not row.get("ID") for row in rows)):
            raise RestError(400, "", f"{name} is a multiple field")
        fields |= {name: rows} if name in fields else {}


def _a_date(value: Any) -> str:
    try:
        return date.fromisoformat(str(value)[:10]).isoformat() if value else ""
    except ValueError:
        return ""
