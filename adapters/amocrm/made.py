"""What rules make of a call besides its entry: a task, a lead; and the task's end when the customer was called back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.amocrm.client import Accepted, AmoClient, as_outcome, unseen
from adapters.amocrm.config import AmoCrmSettings
from adapters.amocrm.entities import user_id
from adapters.amocrm.rules import called_back_text, deadline, fitting, lead_name, responsible_user, task_text
from adapters.base import Tenant
from daemon.model.delivery import Ambiguous, Delivered, Delivery, Outcome, Retry
from daemon.model.integration import Rule

CALL_TASK = 1  # the task type "call"
BY_RULE, CALLED_BACK = "by_rule", "called_back"  # payload["what"]


class Maker:
    """One delivery of kind TASK. What the journal learnt of the customer stands in the lane's memory."""

    def __init__(self, client: AmoClient, settings: AmoCrmSettings, tenant: Tenant) -> None:
        self._client = client
        self._settings = settings
        self._tenant = tenant

    async def make(self, delivery: Delivery) -> Outcome:
        """Does what the rule says; Delivered with a word when there is nothing to do."""
        if delivery.payload.get("what") == CALLED_BACK:
            return await self._close(delivery)
        known, entity_type, entity_id = self._learnt(delivery)
        if known is None:
            return Delivered("nothing was made: the call did not reach amoCRM")
        rule = fitting(self._settings, delivery.call, known)
        if rule.do == "lead" and entity_type == "contacts" and "lead_id" not in delivery.memory:
            return await self._lead(delivery, rule, entity_id)
        if rule.do == "task" and entity_type and entity_id:
            return await self._task(delivery, rule, entity_type, entity_id)
        return Delivered("nothing was to be made")

    async def reconcile(self, delivery: Delivery) -> Outcome:
        """Whether the task or the lead is there: both carry the call's moment in their text."""
        if delivery.payload.get("what") == CALLED_BACK:
            return Retry("a closed task may be closed again", after_s=0)
        known, entity_type, entity_id = self._learnt(delivery)
        rule = fitting(self._settings, delivery.call, bool(known))
        if rule.do == "lead":
            name = lead_name(delivery.call, self._settings, self._tenant)
            return await self._find("leads", {"query": name}, "name", name, "lead_id")
        query = {"filter[entity_type]": entity_type, "filter[entity_id][0]": str(entity_id)}
        return await self._find("tasks", query, "text", task_text(delivery.call, self._settings, self._tenant), "task_id")

    async def _task(self, delivery: Delivery, rule: Rule, entity_type: str, entity_id: int) -> Outcome:
        call = delivery.call
        owner: int | None = None
        if rule.responsible == "entity":
            answer = await self._client.get(f"api/v4/{entity_type}/{entity_id}")
            if not isinstance(answer, Accepted):
                return as_outcome(answer)
            owner = user_id(answer.body)
        task: dict[str, Any] = {
            "text": task_text(call, self._settings, self._tenant), "complete_till": deadline(call, rule), "task_type_id": CALL_TASK,
            "entity_id": entity_id, "entity_type": entity_type, "request_id": str(delivery.id),
        }  # fmt: skip
        if (user := responsible_user(call, rule, self._settings, self._tenant, owner)) is not None:
            task["responsible_user_id"] = user
        answer = await self._client.post_one("api/v4/tasks", task)
        if not isinstance(answer, Accepted):
            return as_outcome(answer)
        made = answer.listed("tasks")
        return Delivered("a task", {"task_id": made[0].get("id")}) if made else Ambiguous("amoCRM did not say which task it made")

    async def _lead(self, delivery: Delivery, rule: Rule, contact_id: int) -> Outcome:
        call = delivery.call
        answer = await self._client.get(f"api/v4/contacts/{contact_id}")
        if not isinstance(answer, Accepted):
            return as_outcome(answer)
        lead: dict[str, Any] = {
            "name": lead_name(call, self._settings, self._tenant), "_embedded": {"contacts": [{"id": contact_id}]}, "request_id": str(delivery.id),
        }  # fmt: skip
        if (user := responsible_user(call, rule, self._settings, self._tenant, user_id(answer.body))) is not None:
            lead["responsible_user_id"] = user
        if self._settings.pipeline_id is not None:
            lead["pipeline_id"] = self._settings.pipeline_id
        answer = await self._client.post_one("api/v4/leads", lead)
        if not isinstance(answer, Accepted):
            return as_outcome(answer)
        made = answer.listed("leads")
        return Delivered("a lead", {"lead_id": made[0].get("id")}) if made else Ambiguous("amoCRM did not say which lead it made")

    async def _close(self, delivery: Delivery) -> Outcome:
        task = delivery.memory.get("task_id")
        if task is None:
            return Delivered("there is no task to close")
        by = delivery.payload.get("by")
        closed = {"id": task, "is_completed": True, "result": {"text": called_back_text(self._settings, str(by) if by else None)}}
        answer = await self._client.patch("api/v4/tasks", [closed])
        return Delivered("the task is closed") if isinstance(answer, Accepted) else as_outcome(answer)

    async def _find(self, path: str, query: Mapping[str, str], field: str, value: str, remembered: str) -> Outcome:
        answer = await self._client.get(f"api/v4/{path}", {**query, "limit": "250", "order[id]": "desc"})
        if not isinstance(answer, Accepted):
            return unseen(answer)
        for item in answer.listed(path):
            if item.get(field) == value:
                return Delivered("it had arrived", {remembered: item.get("id")})
        return Retry("it had not arrived", after_s=0)

    def _learnt(self, delivery: Delivery) -> tuple[bool | None, str, int]:
        memory = delivery.memory
        known, entity_id = memory.get("known"), memory.get("entity_id")
        return (
            known if isinstance(known, bool) else None,
            str(memory.get("entity_type") or ""),
            int(entity_id) if isinstance(entity_id, (int, str)) and str(entity_id).isdecimal() else 0,
        )
