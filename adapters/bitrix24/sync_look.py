"""Looks at entities, as many as one request takes.

Lists hold 50 of them, by ID or by ORIGIN_ID, where 50 questions for one each would cost the portal many times as much of the run time that it allows.
What a list leaves out is asked for alone, for a list is silent about what may not be read, and a filter that was not understood gives anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from adapters.bitrix24.client import Accepted, Answer, Command, Oversized, Portal
from adapters.bitrix24.limits import LIST_PAGE, MAX_BATCH, SYNC
from adapters.bitrix24.sync_fields import ORIGINATOR, Entity, origin
from adapters.bitrix24.sync_room import TASK, Kept, Pair
from adapters.bitrix24.sync_rules import Known, Merged, is_denied
from daemon.model.crm_record import RecordType
from daemon.model.delivery import AuthExpired, Delivered, Outcome, Rejected, Retry

MAX_TASKS = 50
MAX_LOOKED_AT = 1_000  # in one request: twenty lists, and a few more where types and ways to find them differ
_DEAL_PREFIX = "D_"  # of UF_CRM_TASK: which kind of entity a task is about
_GONE = ("not found", "не найден")
Place = tuple[str, str, str]  # entity type, ID or ORIGIN_ID, its value
T = TypeVar("T")


@dataclass
class Work:
    """One pair on its way."""

    index: int
    pair: Pair
    entity: Entity | None = None
    kind: RecordType | None = None
    merged: Merged | None = None
    view: dict[str, Any] = field(default_factory=dict)
    tasks: list[dict[str, Any]] | None = None

    @property
    def known(self) -> Known:
        return self.pair.known or Known()


@dataclass(frozen=True, slots=True)
class Listing:
    """One command for a list, and the places that it is asked for."""

    command: Command
    places: Mapping[str, Place]  # by what the entity has as its key
    key: str

    def read(self, answer: Answer) -> tuple[dict[Place, Entity], bool]:
        """The entities by their places; and whether what is not among them is surely not listed."""
        if not isinstance(answer, Accepted) or not isinstance(answer.result, list):
            return {}, False
        found: dict[Place, Entity] = {}
        is_asked_for = True
        for row in answer.result:
            place = self.places.get(str(row.get(self.key))) if isinstance(row, Mapping) and row.get("ID") else None
            if place is None:
                is_asked_for = False
            else:
                found.setdefault(place, row)
        if not is_asked_for:  # the portal did not understand the filter
            return {}, False
        return found, len(answer.result) < LIST_PAGE or len(found) == len(self.places)


def listings(places: Sequence[Place]) -> list[Listing]:
    """Lists that hold all of these places, 50 in each."""
    grouped: dict[tuple[str, str], list[Place]] = {}
    for place in dict.fromkeys(places):
        grouped.setdefault(place[:2], []).append(place)
    made: list[Listing] = []
    for (entity_type, key), some in grouped.items():
        for part in chunks(some, LIST_PAGE):
            wanted = {f"@{key}": [value for *_, value in part], **({"ORIGINATOR_ID": ORIGINATOR} if key == "ORIGIN_ID" else {})}
            made.append(Listing(_list_of(f"l{len(made)}", entity_type, wanted), {place[2]: place for place in part}, key))
    return made


class Looker:
    """Looks for the entities of one attempt; what cannot be gone on with stands in `kept`. `address`: the portal's scheme and host."""

    def __init__(self, portal: Portal, address: str, enterprise: str, kept: dict[int, Kept]) -> None:
        self._portal = portal
        self._address = address
        self._enterprise = enterprise
        self._kept = kept

    async def look(self, works: Sequence[Work]) -> None:
        """Each work's entity, where there is one, and the tasks of deals."""
        entities = [work for work in works if work.pair.entity_type != TASK]
        deals = chunks([work for work in entities if _may_have_tasks(work)], MAX_BATCH - 1)
        others = chunks([work for work in entities if not _may_have_tasks(work)], MAX_LOOKED_AT)
        for some in [*deals, *others]:
            await self._look(some)
        for some in chunks([work for work in works if work.pair.entity_type == TASK], MAX_BATCH):
            await self._look_at_tasks(some)

    async def _look(self, works: Sequence[Work]) -> None:
        lists = listings([self.place(work) for work in works])
        answers = await self._ask([*(one.command for one in lists), *(_tasks_of(work) for work in works if _may_have_tasks(work))], works)
        if isinstance(answers, Oversized):
            for half in chunks(works, (len(works) + 1) // 2):
                await self._look(half)
            return
        if answers is None:
            return
        found, absent, failed = read_all(lists, answers)
        alone: list[Work] = []
        for work in works:
            place = self.place(work)
            work.tasks = _read_tasks(answers.get(f"t{work.index}"), self._address)
            work.entity = found.get(place)
            if place in failed:
                self._kept[work.index] = Kept(work.pair, without_telephony(failed[place]))
            elif work.entity is None and (work.pair.entity_id is not None or place not in absent):
                alone.append(work)
        for some in chunks(alone, MAX_BATCH):
            await self._look_alone(some)

    async def _look_alone(self, works: Sequence[Work]) -> None:
        answers = await self._ask([self._finding(work) for work in works], works)
        if isinstance(answers, Oversized):
            for half in chunks(works, (len(works) + 1) // 2):
                await self._look_alone(half)
            return
        for work in works if answers is not None else ():
            assert answers is not None
            self._looked(work, answers[f"e{work.index}"])

    def place(self, work: Work) -> Place:
        """Where a work's entity is looked for: by its ID, else by the mark that the sync puts on what it makes."""
        pair = work.pair
        if pair.entity_id is not None:
            return pair.entity_type, "ID", str(pair.entity_id)
        assert pair.kind is not None
        assert pair.record_id is not None
        return pair.entity_type, "ORIGIN_ID", origin(self._enterprise, pair.kind, pair.record_id)

    def _finding(self, work: Work) -> Command:
        entity_type, key, value = self.place(work)
        if key == "ID":
            return Command(f"e{work.index}", f"crm.{entity_type}.get", {"id": value})
        return _list_of(f"e{work.index}", entity_type, {"ORIGINATOR_ID": ORIGINATOR, key: value})

    def _looked(self, work: Work, answer: Answer) -> None:
        pair, kept = work.pair, self._kept
        if isinstance(answer, Rejected) and pair.entity_id is not None and is_gone(answer.reason):
            kept[work.index] = Kept(pair, Delivered("it is not at the portal any more"), gone=True)
        elif not isinstance(answer, Accepted):
            kept[work.index] = Kept(pair, without_telephony(answer))
        elif pair.entity_id is not None and isinstance(answer.result, Mapping):
            work.entity = answer.result
        elif pair.entity_id is None and isinstance(answer.result, list):
            work.entity = next((row for row in answer.result if isinstance(row, Mapping) and row.get("ID")), None)
        else:
            kept[work.index] = Kept(pair, Retry("the portal's answer has no fields"))

    async def _look_at_tasks(self, works: Sequence[Work]) -> None:
        """Which deals tasks are about. One that is gone, or may not be read, is about none any more."""
        commands = [Command(f"e{work.index}", "tasks.task.get", {"taskId": work.pair.entity_id, "select": ["ID", "UF_CRM_TASK"]}) for work in works]
        answers = await self._ask(commands, works)
        for work in works if answers is not None else ():
            assert isinstance(answers, Mapping)
            answer = without_telephony(answers[f"e{work.index}"])
            is_known = isinstance(answer, (Accepted, Rejected))
            deals = deals_of(answer.result) if isinstance(answer, Accepted) else ()
            self._kept[work.index] = Kept(work.pair, Delivered() if is_known else answer, deals=deals)  # type: ignore[arg-type]

    async def _ask(self, commands: Sequence[Command], works: Sequence[Work]) -> Mapping[str, Answer] | Oversized | None:
        """The answers by name; Oversized when they do not fit into one and fewer would; None, and what became of all of them noted, when the request
        came to nothing."""
        answers = await self._portal.run(commands, SYNC) if commands else {}
        too_long = answers if isinstance(answers, Oversized) else _too_long(answers) if isinstance(answers, Mapping) else None
        if too_long is not None and len(works) > 1:
            return too_long
        if isinstance(answers, Mapping):
            return answers
        self._kept |= {work.index: Kept(work.pair, answers) for work in works}
        return None


def read_all(lists: Sequence[Listing], answers: Mapping[str, Answer]) -> tuple[dict[Place, Entity], set[Place], dict[Place, Outcome]]:
    """What several lists say: the entities by their places, the places where surely none is, and the outcomes of those that were refused."""
    found: dict[Place, Entity] = {}
    absent: set[Place] = set()
    failed: dict[Place, Outcome] = {}
    for one in lists:
        answer = answers[one.command.name]
        if not isinstance(answer, Accepted):
            failed |= dict.fromkeys(one.places.values(), answer)
            continue
        rows, is_whole = one.read(answer)
        found |= rows
        absent |= set(one.places.values()) - rows.keys() if is_whole else set()
    return found, absent, failed


def _too_long(answers: Mapping[str, Answer]) -> Oversized | None:
    """One command goes without a batch, and its answer is the whole one."""
    return next((answer for answer in answers.values() if isinstance(answer, Oversized)), None)


def deals_of(result: Any) -> tuple[int, ...]:
    """The deals that a task names; without any the portal says false."""
    task = result.get("task") if isinstance(result, Mapping) else None
    links = task.get("ufCrmTask") if isinstance(task, Mapping) else None
    named = [str(one).removeprefix(_DEAL_PREFIX) for one in links if str(one).startswith(_DEAL_PREFIX)] if isinstance(links, list) else []
    return tuple(sorted({number for one in named if (number := number_of(one))}))


def without_telephony(answer: T) -> T | Rejected:
    """A right that only the sync needs stops the sync's record, and never the calls."""
    return Rejected(answer.reason) if isinstance(answer, AuthExpired) and is_denied(answer.reason) else answer


def is_gone(reason: str) -> bool:
    """Whether this says that there is no such entity."""
    return any(words in reason.lower() for words in _GONE)


def number_of(value: Any) -> int:
    """An id; 0 where it is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """`items` in parts of at most `size`."""
    return [items[first : first + size] for first in range(0, len(items), size)]


def _list_of(name: str, entity_type: str, wanted: Mapping[str, Any]) -> Command:
    select = ["*", "PHONE", "EMAIL"] if entity_type != "deal" else ["*"]
    return Command(name, f"crm.{entity_type}.list", {"filter": wanted, "order": {"ID": "ASC"}, "select": select, "start": -1})


def _may_have_tasks(work: Work) -> bool:
    return work.pair.entity_type == "deal" and work.pair.entity_id is not None


def _tasks_of(work: Work) -> Command:
    wanted = {"UF_CRM_TASK": f"{_DEAL_PREFIX}{work.pair.entity_id}"}
    return Command(f"t{work.index}", "tasks.task.list", {"filter": wanted, "select": ["ID", "TITLE", "STATUS"], "order": {"ID": "asc"}, "start": -1})


def _read_tasks(answer: Answer | None, address: str) -> list[dict[str, Any]] | None:
    rows = answer.result.get("tasks") if isinstance(answer, Accepted) and isinstance(answer.result, Mapping) else None
    if not isinstance(rows, list):
        return None
    return [_task(row, address) for row in rows if isinstance(row, Mapping)][:MAX_TASKS]


def _task(row: Mapping[str, Any], address: str) -> dict[str, Any]:
    """A task as mappings keep it. The address is the one under which whoever is logged in sees it: the portal reads user 0 as that."""
    task: dict[str, Any] = {name: str(row.get(name) or "")[:500] for name in ("id", "title", "status")}
    return {**task, "url": f"{address}/company/personal/user/0/tasks/task/view/{number}/"} if (number := number_of(task["id"])) else task
