"""Pages of the portal's entities, for a sync of all of them: by ID, so that what is added or taken away meanwhile shifts no page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.base import Connection
from adapters.bitrix24.client import Accepted, Command, Portal, Ref
from adapters.bitrix24.limits import LIST_PAGE, SYNC, SYNCED_AT_ONCE
from daemon.model.delivery import Outcome, Retry

PAGE = SYNCED_AT_ONCE  # several of the portal's pages, each beginning where the one before it ends, in one request


@dataclass(frozen=True, slots=True)
class IdPage:
    """Ids, ascending; the next page begins after `after`; whether there is none."""

    ids: Sequence[int]
    after: int
    is_last: bool


async def page_of_ids(connection: Connection, entity_type: str, after: int, filters: Mapping[str, Any]) -> IdPage | Outcome:
    """The next contacts, companies or deals with a greater id than `after`, PAGE at most. `filters`: `ids` and `updated_since` (ISO 8601), where they
    are asked for. Without the count, which costs the portal most."""
    named = sorted(one for one in filters["ids"] if one > after)[:PAGE] if filters.get("ids") else None
    commands = _pages(entity_type, after, filters) if named is None else _named(entity_type, named, filters)
    if not commands:
        return IdPage((), after, is_last=True)
    answers = await Portal(connection).run(commands, SYNC)
    if not isinstance(answers, Mapping):
        return answers
    ids: list[int] = []
    for command in commands:
        answer = answers[command.name]
        if not isinstance(answer, Accepted):
            return answer
        if (page := _ids(answer.result)) is None or (page and page[0] <= (ids[-1] if ids else after)):
            return Retry("the portal's list does not go on")
        ids += page
        if named is None and len(page) < LIST_PAGE:  # the pages behind it begin nowhere
            return IdPage(ids, after, is_last=True)
    return IdPage(ids, ids[-1] if named is None else named[-1], is_last=named is not None and len(named) < PAGE)


def _pages(entity_type: str, after: int, filters: Mapping[str, Any]) -> list[Command]:
    return [
        _page(number, entity_type, {**_filter(filters), ">ID": Ref(f"p{number - 1}", (LIST_PAGE - 1, "ID")) if number else after})
        for number in range(PAGE // LIST_PAGE)
    ]


def _named(entity_type: str, ids: Sequence[int], filters: Mapping[str, Any]) -> list[Command]:
    parts = [ids[first : first + LIST_PAGE] for first in range(0, len(ids), LIST_PAGE)]
    return [_page(number, entity_type, _filter({**filters, "ids": part})) for number, part in enumerate(parts)]


def _page(number: int, entity_type: str, wanted: Mapping[str, Any]) -> Command:
    return Command(f"p{number}", f"crm.{entity_type}.list", {"filter": wanted, "order": {"ID": "ASC"}, "select": ["ID"], "start": -1})


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


def _ids(result: Any) -> list[int] | None:
    """The ids of a page's rows, ascending; None for what is no page."""
    if not isinstance(result, list):
        return None
    found = sorted({int(row["ID"]) for row in result if isinstance(row, Mapping) and str(row.get("ID", "")).isdecimal()})
    return found if len(found) == len(result) else None


def _filter(filters: Mapping[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if filters.get("ids"):
        wanted["@ID"] = list(filters["ids"])
    if filters.get("updated_since"):
        wanted[">=DATE_MODIFY"] = filters["updated_since"]
    return wanted
