"""The portal's other methods: users, CRM objects, tasks, events, the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lab.crm.bitrix24_data import PAGE, Params, RestError
from lab.crm.bitrix24_entities import CRM_EVENTS, Entities

if TYPE_CHECKING:
    from lab.crm.bitrix24 import Bitrix24Sandbox

MAX_HITS = 20  # of one type, of crm.duplicate.findbycomm
EVENTS = ("ONEXTERNALCALLSTART", "ONEXTERNALCALLBACKSTART", *CRM_EVENTS)
Method = Callable[[Params], Awaitable[Any]]


class Office:
    """Methods of one portal."""

    def __init__(self, box: Bitrix24Sandbox) -> None:
        self._box = box
        self.methods: dict[str, Method] = {
            "user.get": self._users, "user.current": self._current, "user.update": self._user_update, "profile": self._current, "scope": self._scope,
            "app.info": self._app_info, "event.bind": self._bind, "event.unbind": self._unbind, "event.get": self._events,
            "crm.duplicate.findbycomm": self._duplicates, "tasks.task.add": self._task_add, "tasks.task.get": self._task_get,
            "tasks.task.complete": self._task_complete, "tasks.task.list": self._task_list, "tasks.task.update": self._task_update,
            "tasks.task.delete": self._task_delete,
        }  # fmt: skip
        self.methods |= Entities(box).methods

    # -- users ---------------------------------------------------------------------------------------------------------------------

    async def _users(self, params: Params) -> Any:
        users = sorted(self._box.data.users.values(), key=lambda user: int(user.id))
        wanted = Params(params.get("FILTER", {}) if isinstance(params.get("FILTER", {}), dict) else {})
        if wanted.get("UF_PHONE_INNER") is not None:
            users = [user for user in users if user.phone == wanted.text("UF_PHONE_INNER")]
        if wanted.get("ACTIVE") is not None:
            users = [user for user in users if user.is_active == wanted.flag("ACTIVE", True)]
        if wanted.get("ID") is not None:
            users = [user for user in users if user.id in wanted.ids("ID")]
        page = self._box.page([user.to_json() for user in users], params)
        if self._box.switches.partial_users:
            page.total = len(users) + 1
        return page

    async def _current(self, _: Params) -> Any:
        return self._box.data.users[self._box.webhook_user].to_json()

    async def _user_update(self, params: Params) -> Any:
        user = self._box.data.users.get(params.text("ID"))
        if user is None:
            raise RestError(400, "", "User not found")
        if params.get("UF_PHONE_INNER") is not None:
            user.phone = params.text("UF_PHONE_INNER") or None
        return True

    # -- the application --------------------------------------------------------------------------------------------------------------

    async def _scope(self, _: Params) -> Any:
        return sorted(self._box.scopes)

    async def _app_info(self, _: Params) -> Any:
        return {"ID": 3, "CODE": self._box.client_id, "VERSION": 1, "STATUS": "L", "INSTALLED": True, "LICENSE": "ru_basic"}

    async def _bind(self, params: Params) -> Any:
        event, handler = params.text("event").upper(), params.text("handler")
        if event not in EVENTS or (event.startswith("ONTASK") and "task" not in self._box.scopes):
            raise RestError(400, "ERROR_EVENT_NOT_FOUND", "Event not found")
        if (event, handler) in self._box.data.handlers:
            raise RestError(400, "ERROR_CORE", "Unable to set event handler: Handler already binded")
        self._box.data.handlers.append((event, handler))
        return True

    async def _unbind(self, params: Params) -> Any:
        pair = (params.text("event").upper(), params.text("handler"))
        count = self._box.data.handlers.count(pair)
        self._box.data.handlers = [each for each in self._box.data.handlers if each != pair]
        return {"count": count}

    async def _events(self, _: Params) -> Any:
        return [{"event": event, "handler": handler, "auth_type": "0", "offline": 0} for event, handler in self._box.data.handlers]

    # -- duplicates ---------------------------------------------------------------------------------------------------------------------

    async def _duplicates(self, params: Params) -> Any:
        kind, values = params.text("type"), params.get("values")
        if not kind:
            raise RestError(400, "Communication type is not defined", "Parameter 'type' is required.")
        if kind not in ("PHONE", "EMAIL"):
            raise RestError(400, f"Communication type '{kind}' is not supported in current context")
        if not isinstance(values, list) or not values:
            raise RestError(400, "Communication values is not defined")
        found: dict[str, list[int]] = {}
        for value in values[:20]:
            for entity in self._box.data.find_entities(str(value)):
                if params.text("entity_type") in ("", entity.kind) and entity.id not in found.get(entity.kind, []):
                    found.setdefault(entity.kind, []).append(entity.id)
        return {kind: ids[:MAX_HITS] for kind, ids in found.items()} or self._box.switches.empty_map

    # -- tasks -----------------------------------------------------------------------------------------------------------------------------

    async def _task_add(self, params: Params) -> Any:
        fields = params.get("fields")
        if not isinstance(fields, dict):
            raise RestError(400, "100", "Could not find value for parameter {fields} (internal error)")
        if not fields.get("TITLE"):
            raise RestError(400, "ERROR_CORE", "Не указано название задачи<br>")
        if str(fields.get("RESPONSIBLE_ID") or "") not in self._box.data.users:
            raise RestError(400, "ERROR_CORE", "Не указан исполнитель<br>")
        task_id = str(self._box.data.new_id())
        self._box.data.tasks[task_id] = {**fields, "status": "2"}
        self._box.tell("ONTASKADD", int(task_id))
        return {"task": self._task_json(task_id)}

    async def _task_get(self, params: Params) -> Any:
        return {"task": self._task_json(self._task_id(params))}

    async def _task_list(self, params: Params) -> Any:
        wanted = params.get("filter", {})
        about = wanted.get("UF_CRM_TASK") if isinstance(wanted, dict) else None
        abouts = {str(one) for one in (about if isinstance(about, list) else [about])}
        found = [key for key, task in self._box.data.tasks.items() if about is None or abouts & set(map(str, task.get("UF_CRM_TASK") or []))]
        return {"tasks": [self._task_json(key) for key in sorted(found, key=int)[:PAGE]]}

    async def _task_complete(self, params: Params) -> Any:
        task_id = self._task_id(params)
        if self._box.data.tasks[task_id]["status"] == "5":
            raise RestError(400, "ERROR_CORE", "Действие над задачей не разрешено<br>")
        self._box.data.tasks[task_id]["status"] = "5"
        self._box.tell("ONTASKUPDATE", int(task_id))
        return {"task": self._task_json(task_id)}

    async def _task_update(self, params: Params) -> Any:
        task_id, fields = self._task_id(params), params.get("fields")
        if not isinstance(fields, dict):
            raise RestError(400, "100", "Could not find value for parameter {fields} (internal error)")
        self._box.data.tasks[task_id] |= fields
        self._box.tell("ONTASKUPDATE", int(task_id))
        return {"task": self._task_json(task_id)}

    async def _task_delete(self, params: Params) -> Any:
        task_id = self._task_id(params)
        del self._box.data.tasks[task_id]
        self._box.tell("ONTASKDELETE", int(task_id))
        return {"task": True}

    def _task_id(self, params: Params) -> str:
        task_id = params.text("taskId")
        if task_id not in self._box.data.tasks:
            raise RestError(400, "ERROR_CORE", "Задача не найдена или доступ запрещен<br>")
        return task_id

    def _task_json(self, task_id: str) -> dict[str, Any]:
        task = self._box.data.tasks[task_id]
        about = task.get("UF_CRM_TASK") or False  # false where it is about nothing
        return {"id": task_id, "title": task["TITLE"], "responsibleId": str(task["RESPONSIBLE_ID"]), "status": task["status"], "ufCrmTask": about}
