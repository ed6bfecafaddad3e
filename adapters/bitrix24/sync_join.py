"""Before a user or company is made at the portal: whether it is there already, made by people (docs/adapters/bitrix24-sync.md, "The first meeting").

The portal's search for duplicates names candidates by phone, a list by title; what they really have is read and compared here (sync_pairing.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapters.bitrix24.client import Accepted, Answer, Command, Portal
from adapters.bitrix24.limits import LIST_PAGE, MAX_BATCH, SYNC
from adapters.bitrix24.sync_fields import ENTITY, Entity, read_origin
from adapters.bitrix24.sync_look import Work, chunks, listings, number_of, read_all, without_telephony
from adapters.bitrix24.sync_pairing import JOINED, Signs, pair_up, signs_of_entity, signs_of_record, written_forms
from adapters.bitrix24.sync_room import Kept, SyncRoom
from daemon.model.crm_record import RecordType
from daemon.model.delivery import Outcome, Rejected

MAX_VALUES = 20  # that crm.duplicate.findbycomm takes, and as many hits it gives: with so many, more may have been left out
Asked = tuple[Command, RecordType, Sequence[Work]]


class Joiner:
    """Gives works the entities that are theirs, though the sync made neither; where that cannot be told, an outcome in `kept`."""

    def __init__(self, portal: Portal, room: SyncRoom, enterprise: str, kept: dict[int, Kept]) -> None:
        self._portal = portal
        self._room = room
        self._enterprise = enterprise
        self._kept = kept

    async def join(self, works: Sequence[Work]) -> None:
        """Of works that are about to make an entity."""
        new = [work for work in works if work.pair.kind in JOINED and _signs(work)]
        for kind in JOINED:
            some = [work for work in new if work.pair.kind is kind]
            named = await self._named(kind, some)
            there = await self._read(kind, [work for work in some if work.index not in self._kept], named) if named else {}
            if there:
                await self._settle(kind, [work for work in some if work.index not in self._kept], there)

    # -- candidates ----------------------------------------------------------------------------------------------------------------

    async def _named(self, kind: RecordType, works: Sequence[Work]) -> set[int]:
        """Ids of entities that the portal finds by the works' phones and titles, and those that brought a work here."""
        named = {work.pair.twin for work in works if work.pair.twin is not None}
        again: list[Asked] = []
        for asked, hits in await self._search(_searches(kind, works)):
            command, _, some = asked
            if len(hits) >= MAX_VALUES and len(some) > 1:
                again += [one for work in some for one in _searches(kind, [work], command.name)]
            named |= hits
        for _, hits in await self._search(again):
            named |= hits
        return named

    async def _search(self, searches: Sequence[Asked]) -> list[tuple[Asked, set[int]]]:
        found: list[tuple[Asked, set[int]]] = []
        for some in chunks(searches, MAX_BATCH):
            answers = await self._portal.run([command for command, *_ in some], SYNC)
            for asked in some:
                command, kind, works = asked
                answer: Answer = answers[command.name] if isinstance(answers, Mapping) else answers
                if isinstance(answer, Accepted):
                    found.append((asked, _hits(answer, kind)))
                else:
                    self._give_up(works, without_telephony(answer))
        return found

    async def _read(self, kind: RecordType, works: Sequence[Work], named: set[int]) -> dict[int, Entity]:
        """Candidates that are nobody's yet: neither a record's, nor made by the sync."""
        entity_type = ENTITY[kind]
        free = sorted(named - await self._room.taken(entity_type, sorted(named)))
        found: dict[int, Entity] = {}
        for some in chunks(listings([(entity_type, "ID", str(one)) for one in free]), MAX_BATCH):
            answers = await self._portal.run([one.command for one in some], SYNC)
            if not isinstance(answers, Mapping):
                self._give_up(works, answers)
                return {}
            rows, _, failed = read_all(some, answers)
            if failed:
                self._give_up(works, without_telephony(next(iter(failed.values()))))
                return {}
            found |= {number_of(row["ID"]): row for row in rows.values()}
        return {one: row for one, row in found.items() if read_origin(row, self._enterprise) is None}

    def _give_up(self, works: Sequence[Work], outcome: Outcome) -> None:
        """What could not be looked for is not made: it might be there."""
        self._kept |= {work.index: Kept(work.pair, outcome) for work in works}

    # -- who is who ----------------------------------------------------------------------------------------------------------------

    async def _settle(self, kind: RecordType, works: Sequence[Work], entities: Mapping[int, Entity]) -> None:
        country = works[0].pair.around.country if works else ""
        there = {one: signs for one, row in entities.items() if (signs := signs_of_entity(kind, row, country))}
        phones = sorted({phone for signs in there.values() for phone in signs.phones})
        titles = sorted({signs.title for signs in there.values() if signs.title is not None})
        here = {work.pair.record_id: _signs(work) for work in works if work.pair.record_id is not None}
        joined, doubts = pair_up({**await self._room.unpaired(kind, phones, titles), **here}, there)
        for work in works:
            record = work.pair.record_id
            assert record is not None
            if record in joined:
                work.entity = entities[joined[record]]
            elif record in doubts:
                self._kept[work.index] = Kept(work.pair, Rejected(doubts[record].reason))


def _signs(work: Work) -> Signs:
    assert work.pair.kind is not None
    return signs_of_record(work.pair.kind, work.pair.local or {})


def _searches(kind: RecordType, works: Sequence[Work], prefix: str = "") -> list[Asked]:
    """Commands that find all entities which could be these works'."""
    made: list[Asked] = []
    entity_type = ENTITY[kind]
    together: list[Work] = []
    values: list[str] = []

    def search() -> None:
        params = {"type": "PHONE", "values": list(values), "entity_type": entity_type.upper()}
        made.append((Command(f"{prefix}p{works[0].index}_{len(made)}", "crm.duplicate.findbycomm", params), kind, list(together)))
        together.clear()
        values.clear()

    for work in works:
        forms = [form for phone in sorted(_signs(work).phones) for form in written_forms(phone, work.pair.around.country)][:MAX_VALUES]
        if values and len(values) + len(forms) > MAX_VALUES:
            search()
        if forms:
            together.append(work)
            values += forms
    if values:
        search()
    titled = [work for work in works if _signs(work).title is not None]
    for some in chunks(titled, LIST_PAGE // 2 if len(titled) > 1 else 1):
        wanted = {"@TITLE": [str((work.pair.local or {}).get("name")) for work in some]}
        params = {"filter": wanted, "order": {"ID": "ASC"}, "select": ["ID", "TITLE"], "start": -1}
        made.append((Command(f"{prefix}n{works[0].index}_{len(made)}", f"crm.{entity_type}.list", params), kind, some))
    return made


def _hits(answer: Accepted, kind: RecordType) -> set[int]:
    """What a search named: ids by type, or rows of a list."""
    result = answer.result
    if isinstance(result, Mapping):
        several = result.get(ENTITY[kind].upper())
        return {one for number in several if (one := number_of(number))} if isinstance(several, list) else set()
    return {one for row in result if isinstance(row, Mapping) and (one := number_of(row.get("ID")))} if isinstance(result, list) else set()
