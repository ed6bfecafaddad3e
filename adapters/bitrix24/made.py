"""What the rules make at the portal: leads, contacts, tasks; each at most once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.bitrix24.client import Accepted, Answer, Command
from adapters.bitrix24.jobs import Answers, Job, Telling, iso
from daemon.model.delivery import Ambiguous, Delivered, Outcome, Rejected

CLOSED_TASK = ("5", "4", "7")  # completed, awaiting control, declined
_PREFIX = {"LEAD": "L", "CONTACT": "C", "COMPANY": "CO", "DEAL": "D"}


def apply_rule(telling: Telling) -> Outcome | Job:
    """What the rule of an ended call says, for a number that the portal knows or does not know."""
    rule = telling.delivery.payload.get("known" if telling.memory.get("known") else "unknown")
    if rule is None:
        return Delivered("no rule fits")
    if rule["do"] == "task":
        return _add_task(telling, rule)
    if telling.memory.get("entity") or telling.memory.get("known"):
        return Delivered("the number is somebody's")
    kind = str(rule["do"])
    find = Command("find", "crm.duplicate.findbycomm", {"type": "PHONE", "values": [telling.call.customer_number]})
    return Job([find], lambda answers: _add_unless_found(telling, kind, answers["find"]))


def _add_unless_found(telling: Telling, kind: str, found: Answer) -> Outcome | Job:
    if not isinstance(found, Accepted):
        return found
    if found.result:
        return Delivered("the number is somebody's by now")
    call, user = telling.call, telling.memory.get("user") or telling.user
    name = call.customer_name or call.customer_number
    fields: dict[str, Any] = {
        "NAME": name, "PHONE": [{"VALUE": call.customer_number, "VALUE_TYPE": "WORK"}], "SOURCE_ID": "CALL", "ASSIGNED_BY_ID": user,
        **({"TITLE": f"{name} ({call.line})" if call.line else name} if kind == "lead" else {}),
    }  # fmt: skip

    def read(answers: Answers) -> Outcome:
        answer = answers["add"]
        return Delivered("", {"entity": [kind.upper(), str(answer.result)]}) if isinstance(answer, Accepted) else answer

    return Job([Command("add", f"crm.{kind}.add", {"fields": fields})], read)


def _add_task(telling: Telling, rule: Mapping[str, Any]) -> Outcome | Job:
    if telling.memory.get("task"):
        return Delivered("there is a task already")
    call, user = telling.call, telling.memory.get("user") or telling.user
    ended = call.ended_at or call.started_at
    fields: dict[str, Any] = {
        "TITLE": f"☎ {call.customer_number}" + (f" · {call.customer_name}" if call.customer_name else ""),
        "DESCRIPTION": " · ".join(filter(None, [iso(call.started_at, telling.tenant), call.line, call.id])), "RESPONSIBLE_ID": user,
    }  # fmt: skip
    if rule.get("task_deadline_s"):
        fields["DEADLINE"] = iso(ended + rule["task_deadline_s"], telling.tenant)
    entity = telling.memory.get("entity")
    if entity and entity[0] in _PREFIX:
        fields["UF_CRM_TASK"] = [f"{_PREFIX[entity[0]]}_{entity[1]}"]

    def read(answers: Answers) -> Outcome:
        answer = answers["task"]
        if not isinstance(answer, Accepted):
            return answer
        task = answer.result.get("task") if isinstance(answer.result, Mapping) else None
        return Delivered("", {"task": str(task["id"])}) if isinstance(task, Mapping) and task.get("id") else Ambiguous("the portal names no task")

    return Job([Command("task", "tasks.task.add", {"fields": fields})], read)


def close_task(telling: Telling) -> Outcome | Job:
    """The customer was called back: the task is completed, unless somebody has closed it."""
    task = telling.memory.get("task")
    if task is None:
        return Delivered("there is no task to close")
    look, complete = Command("look", "tasks.task.get", {"taskId": task}), Command("complete", "tasks.task.complete", {"taskId": task})

    def read(answers: Answers) -> Outcome:
        answer, looked = answers["complete"], answers["look"]
        if isinstance(answer, Accepted):
            return Delivered()
        before = looked.result.get("task") if isinstance(looked, Accepted) and isinstance(looked.result, Mapping) else None
        is_closed = isinstance(before, Mapping) and str(before.get("status")) in CLOSED_TASK
        return Delivered("somebody had closed it") if is_closed or isinstance(looked, Rejected) else answer

    return Job([look, complete], read)
