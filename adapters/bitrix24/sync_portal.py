"""Makes records and entities equal, as many as one batch takes: look, merge, write, look again (docs/adapters/bitrix24-sync.md).

An entity is always looked for before it is made, by ORIGIN_ID where no mapping names it: an attempt whose answer was lost is repeated without a second one.
What the portal made of a write is read back in the same request, so that what it changes by itself is known, and its echo is recognised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adapters.base import Connection
from adapters.bitrix24.client import Accepted, Answer, Command, Portal
from adapters.bitrix24.limits import MAX_BATCH, SYNC
from adapters.bitrix24.sync_fields import ENTITY, ORIGINATOR, OUT_ONLY, VIEW, Entity, from_portal, kind_of, modified_at, origin, read_origin, to_portal
from adapters.bitrix24.sync_join import Joiner
from adapters.bitrix24.sync_look import Listing, Looker, Place, Work, chunks, is_gone, listings, number_of, read_all, without_telephony
from adapters.bitrix24.sync_pairing import JOINED, Doubt, Signs, signs_of_entity
from adapters.bitrix24.sync_room import Kept, SyncRoom
from adapters.bitrix24.sync_rules import Known, Merged, is_stale, merge, remembered
from daemon.model.crm_record import RecordType
from daemon.model.delivery import Delivered, Delivery, Outcome, Rejected, Retry

MAX_WRITTEN = MAX_BATCH - 2  # in one request: they are read back by one list of those that were made and one of those that were changed
_QUIET = {"REGISTER_SONET_EVENT": "N"}


async def equalise(connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
    """One outcome for each delivery."""
    room: SyncRoom = connection.sync
    works = [Work(index, pair) for index, pair in enumerate(await room.load(batch))]
    kept: dict[int, Kept] = {}
    sync = _Sync(connection, room, kept)

    def left() -> list[Work]:
        return [work for work in works if work.index not in kept]

    for work in works:
        sync.settle(work)
    await sync.look(left())
    await sync.decide(left())
    by_type = sorted(left(), key=lambda work: work.pair.entity_type)
    for entity_type in dict.fromkeys(work.pair.entity_type for work in by_type):
        for some in chunks([work for work in by_type if work.pair.entity_type == entity_type], MAX_WRITTEN):
            await sync.write(some)
    return await room.keep(batch, [kept.get(work.index) or Kept(work.pair, Retry("the portal did not come to it")) for work in works])


class _Sync:
    """The steps; what is done with stands in `kept`."""

    def __init__(self, connection: Connection, room: SyncRoom, kept: dict[int, Kept]) -> None:
        self._portal = Portal(connection)
        self._room = room
        self._enterprise = connection.tenant.number
        self._kept = kept
        self._looker = Looker(self._portal, connection.settings.portal, self._enterprise, kept)
        self._joiner = Joiner(self._portal, room, self._enterprise, kept)

    def settle(self, work: Work) -> None:
        """There may be nothing to do: one side is gone, and the other is left as it is."""
        pair = work.pair
        if pair.deleted or pair.elsewhere or (pair.local is None and pair.record_id is not None):
            said = "its own lane takes it from here" if pair.elsewhere else "one side is gone: the other is left as it is"
            self._kept[work.index] = Kept(pair, Delivered(said))

    async def look(self, works: Sequence[Work]) -> None:
        """Both sides as they are; who is about to make something looks twice whether it is there."""
        await self._looker.look(works)
        await self._joiner.join([work for work in works if work.index not in self._kept and work.entity is None])

    # -- merge ---------------------------------------------------------------------------------------------------------------------

    async def decide(self, works: Sequence[Work]) -> None:
        """What each side is to get; without anything for the portal, that is all."""
        for work in works:
            work.kind = work.pair.kind or kind_of(work.pair.entity_type, work.entity or {})
            if work.entity is not None:
                work.view = self._seen(work, work.entity)
        await self._settle_titles([work.view for work in works])
        await self._decide_new([work for work in works if work.pair.local is None])
        for work in works:
            if work.pair.local is not None:
                self._decide(work)

    async def _decide_new(self, works: Sequence[Work]) -> None:
        """Entities that are no record's: made from here, likely to be that of a record here, or really new."""
        signs = {work.index: signs_of_entity(work.kind, work.entity or {}, work.pair.around.country) for work in works if work.kind is not None}
        twins: dict[RecordType, Mapping[int, Signs]] = {}
        for kind in JOINED:
            mine = [signs[work.index] for work in works if work.kind is kind]
            phones, titles = sorted({phone for one in mine for phone in one.phones}), sorted({one.title for one in mine if one.title is not None})
            twins[kind] = await self._room.unpaired(kind, phones, titles) if phones or titles else {}
        for work in works:
            assert work.kind is not None
            self._kept[work.index] = self._new(work, work.kind, [one for one, mine in twins.get(work.kind, {}).items() if mine.share(signs[work.index])])

    def _new(self, work: Work, kind: RecordType, twins: Sequence[int]) -> Kept:
        pair, entity = work.pair, work.entity
        assert entity is not None
        ours = read_origin(entity, self._enterprise)
        if ours is not None and ENTITY[ours[0]] == pair.entity_type:
            return Kept(pair, Delivered("it was made from here"), kind=ours[0], entity_id=pair.entity_id, instead=ours)
        if len(twins) > 1:
            return Kept(pair, Rejected(Doubt((pair.entity_id or 0,), tuple(twins)).reason))
        if twins:
            return Kept(
                pair, Delivered("a record here has its phone or title, and looks whether it is the same"), entity_id=pair.entity_id, twin=(kind, twins[0])
            )
        at = modified_at(entity)
        known = Known(agreed=dict(work.view), written=remembered((), work.view), changed_at=at)
        return Kept(pair, Delivered(), kind, pair.entity_id, apply=work.view, known=known, tasks=work.tasks, changed_at=at)

    def _decide(self, work: Work) -> None:
        pair, kind = work.pair, work.kind
        assert kind is not None
        assert pair.local is not None
        if work.entity is None:
            work.merged = Merged({}, tuple(name for name in VIEW[kind] if pair.local.get(name) is not None), dict(pair.local))
            return
        at = modified_at(work.entity)
        known = work.known
        view = {name: known.agreed[name] for name in work.view if name in known.agreed} if is_stale(work.view, at, known) else work.view
        work.merged = merge(pair.local, view, known.agreed, pair.changed, at, OUT_ONLY.get(kind, frozenset()))
        if not work.merged.write:
            newest = replace(known, agreed=work.merged.agreed, changed_at=max(at or 0.0, known.changed_at or 0.0) or None)
            self._kept[work.index] = Kept(
                pair, Delivered(), kind, _entity_id(work.entity), work.merged.apply, newest, work.merged.conflicts, tasks=work.tasks, changed_at=at
            )

    def _seen(self, work: Work, entity: Entity) -> dict[str, Any]:
        """An entity's view; where the portal insists on a value for what is empty here, it counts as empty."""
        assert work.kind is not None
        known = work.known
        seen = from_portal(work.kind, entity, {**(work.pair.local or {}), **known.agreed}, work.pair.around.country)
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

    async def write(self, works: Sequence[Work]) -> None:
        """Adds and updates, all of one type of entity, read back in the same request."""
        lists = listings([self._written_place(work) for work in works])
        answers = await self._portal.run([*(self._writing(work) for work in works), *(one.command for one in lists)], SYNC)
        if not isinstance(answers, Mapping):
            self._kept |= {work.index: Kept(work.pair, answers) for work in works}
            return
        done = [work for work in works if self._written(work, answers)]
        before = {work.index: work.view for work in done}
        await self._read_back(done, lists, answers)
        done = [work for work in done if work.index not in self._kept]
        for work in done:
            assert work.entity is not None
            work.view = self._seen(work, work.entity)
        await self._settle_titles([work.view for work in done])
        for work in done:
            assert work.entity is not None
            self._kept[work.index] = self._agreed(work, _entity_id(work.entity), before[work.index])

    def _written_place(self, work: Work) -> Place:
        if work.entity is not None:
            return work.pair.entity_type, "ID", str(_entity_id(work.entity))
        return self._looker.place(work)

    def _writing(self, work: Work) -> Command:
        pair, kind = work.pair, work.kind
        assert kind is not None
        assert work.merged is not None
        view = {**(pair.local or {}), **work.merged.apply}
        fields = to_portal(kind, view, work.merged.write, work.entity or {}, pair.around, work.known.agreed)
        if work.entity is not None:
            return Command(f"w{work.index}", f"crm.{pair.entity_type}.update", {"id": _entity_id(work.entity), "fields": fields, "params": _QUIET})
        assert pair.record_id is not None
        fields |= {"ORIGINATOR_ID": ORIGINATOR, "ORIGIN_ID": origin(self._enterprise, kind, pair.record_id)}
        return Command(f"w{work.index}", f"crm.{pair.entity_type}.add", {"fields": fields, "params": _QUIET})

    def _written(self, work: Work, answers: Mapping[str, Answer]) -> bool:
        """Whether the portal took the write."""
        answer = answers[f"w{work.index}"]
        if isinstance(answer, Accepted):
            return True
        gone = work.entity is not None and isinstance(answer, Rejected) and is_gone(answer.reason)
        outcome = Delivered("it is not at the portal any more") if gone else without_telephony(answer)
        self._kept[work.index] = Kept(work.pair, outcome, gone=gone)
        return False

    async def _read_back(self, works: Sequence[Work], lists: Sequence[Listing], answers: Mapping[str, Answer]) -> None:
        """Each work's entity as the portal made it of the write; what the lists do not show is asked for alone."""
        found, _, _ = read_all(lists, answers)
        places = {work.index: self._written_place(work) for work in works}
        missing: list[tuple[Work, Command]] = []
        for work in works:
            if (row := found.get(places[work.index])) is not None:
                work.entity = row
            else:
                written = answers[f"w{work.index}"]
                number = _entity_id(work.entity) if work.entity is not None else number_of(written.result if isinstance(written, Accepted) else "")
                missing.append((work, Command(f"r{work.index}", f"crm.{work.pair.entity_type}.get", {"id": number})))
        read = await self._portal.run([command for _, command in missing], SYNC) if missing else {}
        for work, command in missing:
            answer = read[command.name] if isinstance(read, Mapping) else read
            if isinstance(answer, Accepted) and isinstance(answer.result, Mapping) and _entity_id(answer.result):
                work.entity = answer.result
            else:
                self._kept[work.index] = Kept(work.pair, Retry("what was written could not be read back", after_s=0.0))

    def _agreed(self, work: Work, entity_id: int, before: Mapping[str, Any]) -> Kept:
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


def _entity_id(entity: Entity) -> int:
    return number_of(entity.get("ID"))
