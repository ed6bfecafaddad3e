"""Makes records and entities equal, as many as one batch takes: look, merge, write, look again (docs/adapters/bitrix24-sync.md).

An entity is always looked for before it is made, by ORIGIN_ID where no mapping names it: an attempt whose answer was lost is repeated without a second one.
What the portal made of a write is read back in the same request, so that what it changes by itself is known, and its echo is recognised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from adapters.base import Connection
from adapters.bitrix24.client import Accepted, Answer, Command, Portal, Ref
from adapters.bitrix24.limits import MAX_BATCH, SYNC
from adapters.bitrix24.sync_fields import ENTITY, ORIGINATOR, OUT_ONLY, VIEW, Entity, from_portal, kind_of, modified_at, origin, read_origin, to_portal
from adapters.bitrix24.sync_room import Kept, Pair, SyncRoom
from adapters.bitrix24.sync_rules import Known, Merged, is_denied, is_stale, merge, remembered
from daemon.model.crm_record import RecordType
from daemon.model.delivery import AuthExpired, Delivered, Delivery, Outcome, Rejected, Retry

MAX_TASKS = 50
_GONE = ("not found", "не найден")
_QUIET = {"REGISTER_SONET_EVENT": "N"}
T = TypeVar("T")


@dataclass
class _Work:
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


async def equalise(connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
    """One outcome for each delivery."""
    room: SyncRoom = connection.sync
    pairs = await room.load(batch)
    kept: dict[int, Kept] = {}
    works = [_Work(index, pair) for index, pair in enumerate(pairs)]
    sync = _Sync(Portal(connection), room, connection.tenant.number)
    open_works = [work for work in works if not sync.is_settled(work, kept)]
    for some in _chunks(open_works, MAX_BATCH // 2 if any(map(_may_have_tasks, open_works)) else MAX_BATCH):
        await sync.look(some, kept)
    open_works = [work for work in open_works if work.index not in kept]
    await sync.decide(open_works, kept)
    open_works = [work for work in open_works if work.index not in kept]
    for some in _chunks(open_works, MAX_BATCH // 2):
        await sync.write(some, kept)
    return await room.keep(batch, [kept.get(work.index) or Kept(work.pair, Retry("the portal did not come to it")) for work in works])


class _Sync:
    """The steps; what is done with stands in `kept`."""

    def __init__(self, portal: Portal, room: SyncRoom, enterprise: str) -> None:
        self._portal = portal
        self._room = room
        self._enterprise = enterprise

    @staticmethod
    def is_settled(work: _Work, kept: dict[int, Kept]) -> bool:
        """Whether there is nothing to do: one side is gone, and the other is left as it is."""
        pair = work.pair
        if pair.deleted or pair.elsewhere or (pair.local is None and pair.record_id is not None):
            said = "its own lane takes it from here" if pair.elsewhere else "one side is gone: the other is left as it is"
            kept[work.index] = Kept(pair, Delivered(said))
        return work.index in kept

    # -- look ----------------------------------------------------------------------------------------------------------------------

    async def look(self, works: Sequence[_Work], kept: dict[int, Kept]) -> None:
        commands = [self._finding(work) for work in works]
        commands += [_tasks_of(work) for work in works if _may_have_tasks(work)]
        answers = await self._run(commands, works, kept)
        for work in works if answers is not None else ():
            assert answers is not None
            self._looked(work, answers, kept)

    def _finding(self, work: _Work) -> Command:
        pair = work.pair
        if pair.entity_id is not None:
            return Command(f"e{work.index}", f"crm.{pair.entity_type}.get", {"id": pair.entity_id})
        assert pair.kind is not None
        assert pair.record_id is not None
        wanted = {"ORIGINATOR_ID": ORIGINATOR, "ORIGIN_ID": origin(self._enterprise, pair.kind, pair.record_id)}
        select = ["*", "PHONE", "EMAIL"] if pair.entity_type != "deal" else ["*"]
        return Command(f"e{work.index}", f"crm.{pair.entity_type}.list", {"filter": wanted, "order": {"ID": "ASC"}, "select": select, "start": -1})

    def _looked(self, work: _Work, answers: Mapping[str, Answer], kept: dict[int, Kept]) -> None:
        pair, answer, listed = work.pair, answers[f"e{work.index}"], answers.get(f"t{work.index}")
        work.tasks = _read_tasks(listed)
        if isinstance(answer, Rejected) and pair.entity_id is not None and _is_gone(answer.reason):
            kept[work.index] = Kept(pair, Delivered("it is not at the portal any more"), gone=True)
        elif not isinstance(answer, Accepted):
            kept[work.index] = Kept(pair, _without_telephony(answer))
        elif pair.entity_id is not None and isinstance(answer.result, Mapping):
            work.entity = answer.result
        elif pair.entity_id is None and isinstance(answer.result, list):
            work.entity = next((row for row in answer.result if isinstance(row, Mapping) and row.get("ID")), None)
        else:
            kept[work.index] = Kept(pair, Retry("the portal's answer has no fields"))

    # -- merge ---------------------------------------------------------------------------------------------------------------------

    async def decide(self, works: Sequence[_Work], kept: dict[int, Kept]) -> None:
        """What each side is to get; without anything for the portal, that is all."""
        for work in works:
            work.kind = work.pair.kind or kind_of(work.pair.entity_type, work.entity or {})
            if work.entity is not None:
                work.view = self._seen(work, work.entity)
        await self._settle_titles([work.view for work in works])
        for work in works:
            self._decide(work, kept)

    def _decide(self, work: _Work, kept: dict[int, Kept]) -> None:
        pair, kind = work.pair, work.kind
        assert kind is not None
        if pair.local is None:
            assert work.entity is not None
            ours = read_origin(work.entity, self._enterprise)
            if ours is not None and ENTITY[ours[0]] == pair.entity_type:
                kept[work.index] = Kept(pair, Delivered("it was made from here"), kind=ours[0], entity_id=pair.entity_id, instead=ours)
                return
            known = replace(Known(), agreed=dict(work.view), written=remembered((), work.view), changed_at=modified_at(work.entity))
            kept[work.index] = Kept(
                pair, Delivered(), kind, pair.entity_id, apply=work.view, known=known, tasks=work.tasks, changed_at=modified_at(work.entity)
            )
            return
        if work.entity is None:
            work.merged = Merged({}, tuple(name for name in VIEW[kind] if pair.local.get(name) is not None), dict(pair.local))
            return
        at = modified_at(work.entity)
        known = work.known
        view = {name: known.agreed[name] for name in work.view if name in known.agreed} if is_stale(work.view, at, known) else work.view
        work.merged = merge(pair.local, view, known.agreed, pair.changed, at, OUT_ONLY.get(kind, frozenset()))
        if not work.merged.write:
            newest = replace(known, agreed=work.merged.agreed, changed_at=max(at or 0.0, known.changed_at or 0.0) or None)
            kept[work.index] = Kept(
                pair, Delivered(), kind, _entity_id(work.entity), work.merged.apply, newest, work.merged.conflicts, tasks=work.tasks, changed_at=at
            )

    def _seen(self, work: _Work, entity: Entity) -> dict[str, Any]:
        """An entity's view; where the portal insists on a value for what is empty here, it counts as empty."""
        assert work.kind is not None
        known = work.known
        seen = from_portal(work.kind, entity, known.agreed, work.pair.around.country)
        return {name: None if value is not None and known.shown.get(name) == value else value for name, value in seen.items()}

    async def _settle_titles(self, views: Sequence[dict[str, Any]]) -> None:
        """A title's end names a contract only where there is one of that number."""
        maybe = {view["maybe"][1] for view in views if "maybe" in view}
        there = await self._room.contracts(sorted(maybe)) if maybe else frozenset()
        for view in views:
            name, number = view.pop("maybe", (None, None))
            if number in there and number is not None:
                view |= {"name": name, "contract": number}

    # -- write ---------------------------------------------------------------------------------------------------------------------

    async def write(self, works: Sequence[_Work], kept: dict[int, Kept]) -> None:
        """Adds and updates, each read back in the same request."""
        commands = [command for work in works for command in self._writing(work)]
        answers = await self._run(commands, works, kept)
        if answers is None:
            return
        done: list[tuple[_Work, int]] = []
        for work in works:
            entity_id = self._written(work, answers, kept)
            if entity_id is not None:
                done.append((work, entity_id))
        before = {work.index: work.view for work, _ in done}
        for work, _ in done:
            assert work.entity is not None
            work.view = self._seen(work, work.entity)
        await self._settle_titles([work.view for work, _ in done])
        for work, entity_id in done:
            kept[work.index] = self._agreed(work, entity_id, before[work.index])

    def _writing(self, work: _Work) -> list[Command]:
        pair, kind = work.pair, work.kind
        assert kind is not None
        assert work.merged is not None
        view = {**(pair.local or {}), **work.merged.apply}
        fields = to_portal(kind, view, work.merged.write, work.entity or {}, pair.around, work.known.agreed)
        name, entity_type = str(work.index), pair.entity_type
        if work.entity is not None:
            entity_id: int | Ref = _entity_id(work.entity)
            first = Command(f"w{name}", f"crm.{entity_type}.update", {"id": entity_id, "fields": fields, "params": _QUIET})
        else:
            assert pair.record_id is not None
            fields |= {"ORIGINATOR_ID": ORIGINATOR, "ORIGIN_ID": origin(self._enterprise, kind, pair.record_id)}
            entity_id = Ref(f"w{name}", ())
            first = Command(f"w{name}", f"crm.{entity_type}.add", {"fields": fields, "params": _QUIET})
        return [first, Command(f"r{name}", f"crm.{entity_type}.get", {"id": entity_id})]

    def _written(self, work: _Work, answers: Mapping[str, Answer], kept: dict[int, Kept]) -> int | None:
        """The entity's id when it was written and read back."""
        written, read = answers[f"w{work.index}"], answers[f"r{work.index}"]
        if not isinstance(written, Accepted):
            is_gone = work.entity is not None and isinstance(written, Rejected) and _is_gone(written.reason)
            outcome = Delivered("it is not at the portal any more") if is_gone else _without_telephony(written)
            kept[work.index] = Kept(work.pair, outcome, gone=is_gone)
            return None
        if not isinstance(read, Accepted) or not isinstance(read.result, Mapping):
            kept[work.index] = Kept(work.pair, Retry("what was written could not be read back", after_s=0.0))
            return None
        entity_id = _entity_id(work.entity) if work.entity is not None else _number(written.result)
        work.entity = read.result
        if not entity_id:
            kept[work.index] = Kept(work.pair, Retry("the portal did not say what it made"))
            return None
        return entity_id

    def _agreed(self, work: _Work, entity_id: int, before: Mapping[str, Any]) -> Kept:
        """What the portal made of our write. Where it insists on a value for what we said is empty, that is remembered; anything else that is not as
        we wrote it is its own change, or somebody's of that very moment, and is taken over."""
        pair, merged, kind = work.pair, work.merged, work.kind
        assert merged is not None
        assert kind is not None
        assert work.entity is not None
        at, known = modified_at(work.entity), work.known
        insisted = {name: work.view[name] for name in merged.write if merged.agreed.get(name) is None and work.view.get(name) is not None}
        if not before:  # a new one: the portal may fill in what we said nothing of
            insisted |= {
                name: value for name, value in work.view.items() if value is not None and merged.agreed.get(name) is None and name in ("starts_on", "ends_on")
            }
        shown = {**{name: value for name, value in known.shown.items() if name not in merged.write}, **insisted}
        view = {name: None if name in insisted else value for name, value in work.view.items()}
        local = {**(pair.local or {}), **merged.apply}
        again = merge(local, view, merged.agreed, {}, None, OUT_ONLY.get(kind, frozenset()))
        written = remembered(remembered(known.written, before), work.view)
        latest = Known(again.agreed, shown, written, max(at or 0.0, known.changed_at or 0.0) or None)
        apply = {**merged.apply, **again.apply}
        return Kept(pair, Delivered(), kind, entity_id, apply, latest, merged.conflicts, to_portal=True, tasks=work.tasks, changed_at=at)

    # -- the portal ----------------------------------------------------------------------------------------------------------------

    async def _run(self, commands: Sequence[Command], works: Sequence[_Work], kept: dict[int, Kept]) -> Mapping[str, Answer] | None:
        """The answers by name; None, and what became of all of them noted, when the request as a whole came to nothing."""
        answers = await self._portal.run(commands, SYNC) if commands else {}
        if isinstance(answers, Mapping):
            return answers
        kept |= {work.index: Kept(work.pair, answers) for work in works}
        return None


def _may_have_tasks(work: _Work) -> bool:
    return work.pair.entity_type == "deal" and work.pair.entity_id is not None


def _tasks_of(work: _Work) -> Command:
    params = {"filter": {"UF_CRM_TASK": f"D_{work.pair.entity_id}"}, "select": ["ID", "TITLE", "STATUS"], "order": {"ID": "asc"}, "start": -1}
    return Command(f"t{work.index}", "tasks.task.list", params)


def _read_tasks(answer: Answer | None) -> list[dict[str, Any]] | None:
    rows = answer.result.get("tasks") if isinstance(answer, Accepted) and isinstance(answer.result, Mapping) else None
    if not isinstance(rows, list):
        return None
    return [{name: str(row.get(name) or "")[:500] for name in ("id", "title", "status")} for row in rows if isinstance(row, Mapping)][:MAX_TASKS]


def _without_telephony(answer: Answer) -> Outcome:
    """A right that only the sync needs stops the sync's record, and never the calls."""
    assert not isinstance(answer, Accepted)
    return Rejected(answer.reason) if isinstance(answer, AuthExpired) and is_denied(answer.reason) else answer


def _is_gone(reason: str) -> bool:
    return any(words in reason.lower() for words in _GONE)


def _entity_id(entity: Entity) -> int:
    return _number(entity.get("ID"))


def _number(value: Any) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[first : first + size] for first in range(0, len(items), size)]
