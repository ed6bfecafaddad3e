"""Pages of the portal's entities, for a sync of all of them: by ID, so that what is added or taken away meanwhile shifts no page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.base import Connection
from adapters.bitrix24.client import Accepted, Command, Portal
from adapters.bitrix24.limits import SYNC
from daemon.model.delivery import Outcome, Retry

PAGE = 50


async def page_of_ids(connection: Connection, entity_type: str, after: int, filters: Mapping[str, Any]) -> Sequence[int] | Outcome:
    """The ids of the next page of contacts, companies or deals, ascending; fewer than PAGE: it is the last. `filters`: `ids` and `updated_since`
    (ISO 8601), where they are asked for. Without the count, which costs the portal most."""
    wanted = {**_filter(filters), ">ID": after}
    answer = await Portal(connection).call(f"crm.{entity_type}.list", {"filter": wanted, "order": {"ID": "ASC"}, "select": ["ID"], "start": -1}, SYNC)
    if not isinstance(answer, Accepted):
        return answer
    if not isinstance(answer.result, list):
        return Retry("the portal's list is none")
    found = sorted({int(row["ID"]) for row in answer.result if isinstance(row, Mapping) and str(row.get("ID", "")).isdecimal()})
    fresh = [one for one in found if one > after]
    return fresh if len(fresh) == len(answer.result) else Retry("the portal's list does not go on")


async def count(connection: Connection, entity_types: Sequence[str], filters: Mapping[str, Any]) -> Mapping[str, int] | Outcome:
    """How many there are of each, in one request."""
    commands = [Command(one, f"crm.{one}.list", {"filter": _filter(filters), "select": ["ID"], "start": 0}) for one in entity_types]
    answers = await Portal(connection).run(commands, SYNC)
    if not isinstance(answers, Mapping):
        return answers
    totals: dict[str, int] = {}
    for name, answer in answers.items():
        if not isinstance(answer, Accepted):
            return answer
        totals[name] = answer.total if answer.total is not None else len(answer.result or [])
    return totals


def _filter(filters: Mapping[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if filters.get("ids"):
        wanted["@ID"] = list(filters["ids"])
    if filters.get("updated_since"):
        wanted[">=DATE_MODIFY"] = filters["updated_since"]
    return wanted
