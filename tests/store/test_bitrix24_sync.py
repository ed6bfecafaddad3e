"""Bitrix24's sync on a real database and a portal in a box: what changes on either side comes to the other, once, and nothing comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from adapters.bitrix24.deliver import Bitrix24
from daemon.errors import NotFound, VochidError
from daemon.model.crm_record import LOCAL, CrmRecord, RecordType
from daemon.model.delivery import Leak, Rate
from daemon.store.crm_records import CrmRecordRepository, RecordFilter
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from daemon.wiring.bitrix24_jobs import Bitrix24Jobs, open_bitrix24_sync
from daemon.wiring.bitrix24_sync import Bitrix24Sync
from lab.crm.bitrix24 import Bitrix24Sandbox
from lab.crm.bitrix24_data import Entity, Params
from tests.patience import PATIENCE_S
from tests.rig import NUMBER, WITHIN_S, Rig, a_call, rig


class Fast(Bitrix24):
    """Without the portal's budget, which the sandbox does not ask for here either."""

    policy = replace(
        Bitrix24.policy,
        rates={name: Leak("portal", 1_000, 1_000.0) if isinstance(rate, Leak) else Rate(1_000, 1.0) for name, rate in Bitrix24.policy.rates.items()},
    )


@dataclass
class Both:
    """Two sides and what joins them."""

    rig: Rig
    box: Bitrix24Sandbox
    records: CrmRecordRepository
    sync: Bitrix24Sync
    jobs: Bitrix24Jobs

    async def make(self, kind: RecordType, **fields: Any) -> CrmRecord:
        async with self.rig.db.tenant(NUMBER) as connection:
            return await self.records.make(connection, NUMBER, kind, fields, LOCAL)

    async def change(self, kind: RecordType, record_id: int, **fields: Any) -> CrmRecord:
        async with self.rig.db.tenant(NUMBER) as connection:
            return await self.records.change(connection, NUMBER, await self.records.locked(connection, NUMBER, kind, record_id), fields, LOCAL)

    async def delete(self, kind: RecordType, record_id: int) -> None:
        async with self.rig.db.tenant(NUMBER) as connection:
            await self.records.delete(connection, NUMBER, await self.records.locked(connection, NUMBER, kind, record_id), LOCAL)

    async def get(self, kind: RecordType, record_id: int) -> Mapping[str, Any]:
        return (await self.records.get(NUMBER, kind, record_id)).fields

    async def all(self, kind: RecordType) -> list[CrmRecord]:
        return await self.records.page(NUMBER, kind, RecordFilter(), limit=500)

    async def settled(self) -> list[dict[str, Any]]:
        """Waits until nothing is due."""
        self.rig.dispatcher.wake(NUMBER, "bitrix24")
        return await self.rig.settled()

    async def told(self) -> None:
        """Waits until the portal's events were heard and nothing is due."""
        async with asyncio.timeout(WITHIN_S):
            while not self.box.events.is_empty:
                await asyncio.sleep(0.02)
        await self.settled()

    async def finished(self, job: str) -> dict[str, Any]:
        async with asyncio.timeout(WITHIN_S):
            while (shown := (await self.sync.job(NUMBER, job)).shown())["state"] in ("queued", "running"):
                await asyncio.sleep(0.05)
        return shown

    def entities(self, kind: str) -> list[Entity]:
        return [entity for (one, _), entity in sorted(self.box.data.entities.items()) if one == kind]

    async def there(self, kind: str, entity_id: int, **fields: Any) -> None:
        """Somebody changes an entity at the portal, and we hear of it."""
        method = self.box.methods[f"crm.{kind}.update"]
        await method(Params({"id": entity_id, "fields": fields}))
        assert await self.sync.heard(NUMBER, kind, entity_id)

    async def mappings(self) -> list[dict[str, Any]]:
        return (await self.sync.mappings.page(NUMBER, page=1, limit=500))[0]


@asynccontextmanager
async def both(db: Database, **settings: Any) -> AsyncIterator[Both]:
    box = Bitrix24Sandbox()
    box.switches.limited = False
    await box.start()
    supervisor = Supervisor("test")
    try:
        async with rig(db, Fast(), box.settings(**settings)) as built:
            records = CrmRecordRepository(db)
            sync, jobs = open_bitrix24_sync(db, built.tenants, built.crm, records, built.dispatcher, "test")
            supervisor.serve("jobs", jobs.run)
            yield Both(built, box, records, sync, jobs)
            await supervisor.stop()
            await jobs.stop()
    finally:
        await supervisor.stop()
        await box.stop()


async def test_what_is_made_and_changed_here_goes_out_and_its_echo_changes_nothing(db: Database) -> None:
    async with both(db) as b:
        company = await b.make(RecordType.COMPANY, name="ООО «Восток»", phone="+375171112233")
        contract = await b.make(RecordType.CONTRACT, number="7/26", starts_on="2026-03-01", company_id=company.id)
        thing = await b.make(RecordType.OBJECT, name="Трактор", description="синий\nс ковшом", imei="350000000000017", type="машина", contract_id=contract.id)
        user = await b.make(RecordType.USER, name="Ирина Лис", email="i@example.com", phone="+375291112233", role="Диспетчер")
        await b.settled()
        (there,) = b.entities("COMPANY")
        deals = {entity.fields["TITLE"]: entity for entity in b.entities("DEAL")}
        (contact,) = b.entities("CONTACT")
        assert (there.fields["TITLE"], there.phones) == ("ООО «Восток»", ["375171112233"])
        assert set(deals) == {"7/26", "Трактор (7/26)"}
        assert {deal.fields["COMPANY_ID"] for deal in deals.values()} == {str(there.id)}
        assert (deals["7/26"].fields["BEGINDATE"], (await b.get(RecordType.CONTRACT, contract.id))["ends_on"]) == ("2026-03-01", None)
        assert "IMEI: 350000000000017" in deals["Трактор (7/26)"].fields["COMMENTS"]
        assert (contact.fields["NAME"], contact.fields["LAST_NAME"], contact.multi["EMAIL"][0]["VALUE"]) == ("Ирина", "Лис", "i@example.com")
        assert "Роль: Диспетчер" in contact.fields["COMMENTS"] or "Role: Диспетчер" in contact.fields["COMMENTS"]
        assert contact.fields["ORIGIN_ID"] == f"{NUMBER}:user:{user.id}"
        made = {key: entity.changes for key, entity in b.box.data.entities.items()}
        # Every event of ours, twice and in any order, changes nothing on either side.
        for kind, entity in [*(("deal", one) for one in deals.values()), ("contact", contact), ("company", there)] * 2:
            assert await b.sync.heard(NUMBER, kind, entity.id)
        await b.settled()
        assert {key: entity.changes for key, entity in b.box.data.entities.items()} == made
        assert (await b.get(RecordType.OBJECT, thing.id)) == thing.fields
        assert (await b.get(RecordType.USER, user.id)) == user.fields
        # A change here, a change there of another field, and human words in the comments: all stay.
        contact.fields["COMMENTS"] = f"Звонить после обеда\n{contact.fields['COMMENTS']}"
        await b.change(RecordType.USER, user.id, role="Мастер")
        await b.there("contact", contact.id, LAST_NAME="Лисова")
        await b.settled()
        assert (await b.get(RecordType.USER, user.id))["name"] == "Ирина Лисова"
        assert contact.fields["COMMENTS"].startswith("Звонить после обеда\n")
        assert "Мастер" in contact.fields["COMMENTS"]
        # A contract's number is in its objects' titles.
        await b.change(RecordType.CONTRACT, contract.id, number="8/26")
        await b.settled()
        assert {entity.fields["TITLE"] for entity in b.entities("DEAL")} == {"8/26", "Трактор (8/26)"}
        assert len(b.entities("DEAL")) == 2
        stats = await b.sync.stats(NUMBER)
        assert set(stats) == {"mappings", "errors_count", "service_name", "generated_at"}
        assert {name: stats["mappings"][name] for name in ("total_mappings", "object_mappings", "user_mappings", "contract_mappings")} == {
            "total_mappings": 4, "object_mappings": 1, "user_mappings": 1, "contract_mappings": 1,
        }  # fmt: skip
        assert stats["errors_count"] == 0


async def test_what_is_made_and_changed_there_comes_in(db: Database) -> None:
    async with both(db) as b:
        data, methods = b.box.data, b.box.methods
        company = await methods["crm.company.add"](Params({"fields": {"TITLE": "Acme", "PHONE": [{"VALUE": "8 (017) 111-22-33"}]}}))
        contract = await b.make(RecordType.CONTRACT, number="7/26")
        await b.settled()
        deal = await methods["crm.deal.add"](Params({"fields": {"TITLE": "Прицеп (7/26)"}}))
        contact = await methods["crm.contact.add"](Params({"fields": {"NAME": "Пётр", "LAST_NAME": "Сыч"}}))
        for kind, number in (("deal", deal), ("contact", contact)):
            assert await b.sync.heard(NUMBER, kind, number)
        await b.settled()
        (thing,), (user,) = await b.all(RecordType.OBJECT), await b.all(RecordType.USER)
        assert (thing.fields["name"], thing.fields["contract_id"], thing.changes["name"]["by"]) == ("Прицеп", contract.id, "bitrix24")
        assert user.fields == {"name": "Пётр Сыч", "email": None, "phone": None, "role": None}
        # The contract's deal is given a company that is not here yet: it is fetched first.
        (contract_deal,) = [entity for entity in b.entities("DEAL") if entity.fields["TITLE"] == "7/26"]
        await b.there("deal", contract_deal.id, COMPANY_ID=str(company))
        await b.settled()
        (acme,) = await b.all(RecordType.COMPANY)
        assert acme.fields == {"name": "Acme", "phone": "+375171112233"}
        assert (await b.get(RecordType.CONTRACT, contract.id))["company_id"] == acme.id
        data.tasks["9000"] = {"TITLE": "Заменить датчик", "RESPONSIBLE_ID": "12", "status": "2", "UF_CRM_TASK": [f"D_{deal}"]}
        await b.there("deal", deal, TITLE="Полуприцеп (7/26)")
        await b.settled()
        assert (await b.get(RecordType.OBJECT, thing.id))["name"] == "Полуприцеп"
        tasks = next(one["tasks"] for one in await b.mappings() if one["local_type"] == "object")
        assert tasks == [
            {"id": "9000", "title": "Заменить датчик", "status": "2", "url": f"{b.box.url}/company/personal/user/0/tasks/task/view/9000/"},
        ]
        # Deletions: the other side stays, and nothing is made again.
        await methods["crm.contact.delete"](Params({"id": contact}))
        await b.sync.heard(NUMBER, "contact", contact)
        await b.delete(RecordType.OBJECT, thing.id)
        await b.settled()
        await b.change(RecordType.USER, user.id, role="Мастер")
        await b.there("deal", deal, TITLE="Телега")
        await b.settled()
        assert (len(b.entities("CONTACT")), await b.all(RecordType.OBJECT)) == (0, [])
        assert {(one["local_type"], one["deleted"]) for one in await b.mappings()} == {
            ("user", "remote"), ("object", "local"), ("contract", None), ("company", None),
        }  # fmt: skip


async def test_who_is_at_the_portal_already_is_joined_and_not_made_again(db: Database) -> None:
    async with both(db) as b:
        contacts, companies = b.box.methods["crm.contact.add"], b.box.methods["crm.company.add"]

        async def there(add: Any, **fields: Any) -> int:
            return int(await add(Params({"fields": fields})))

        irina = await there(contacts, NAME="Ирина", PHONE=[{"VALUE": "+375171110000"}, {"VALUE": "8 (029) 111-22-33"}], EMAIL=[{"VALUE": "i@example.com"}])
        pair = [await there(contacts, NAME=name, PHONE=[{"VALUE": "+375291112244"}]) for name in ("Пётр", "Павел")]
        shared = await there(contacts, NAME="Касса", PHONE=[{"VALUE": "+375291112255"}])
        east = await there(companies, TITLE="ооо «восток»")
        user = await b.make(RecordType.USER, name="Ирина", phone="+375291112233", role="Диспетчер")
        lone = await b.make(RecordType.USER, name="Пётр", phone="+375291112244")
        both_of_us = [await b.make(RecordType.USER, name=name, phone="+375291112255") for name in ("Анна", "Алла")]
        new = await b.make(RecordType.USER, name="Новый", phone="+375291112266")
        company = await b.make(RecordType.COMPANY, name="ООО «Восток»", phone="+375171112233")
        await b.settled()
        known = {(one["local_type"], one["local_id"]): one["bitrix24_id"] for one in await b.mappings()}
        assert (known["user", user.id], known["company", company.id]) == (irina, east)
        assert known.keys() == {("user", user.id), ("user", new.id), ("company", company.id)}
        assert (len(b.entities("CONTACT")), len(b.entities("COMPANY"))) == (5, 1)  # four were there, one is new
        # Each has what the other had, and nobody's other numbers are touched.
        assert (await b.get(RecordType.USER, user.id))["email"] == "i@example.com"
        entity = b.box.data.entities["CONTACT", irina]
        assert "Диспетчер" in entity.fields["COMMENTS"]
        assert [row["VALUE"] for row in entity.multi["PHONE"]] == ["+375171110000", "8 (029) 111-22-33"]
        assert b.entities("COMPANY")[0].phones == ["375171112233"]
        # What could be several is left apart, and shown.
        errors, _ = await b.sync.errors.page(NUMBER, page=1, limit=10)
        assert {(one["local_id"], one["error_type"]) for one in errors} == {(one.id, "validation") for one in (lone, *both_of_us)}
        assert all(str(one) in next(error["message"] for error in errors if error["local_id"] == lone.id) for one in pair)
        # From the other side it is the same: nobody is made here who may be here.
        for number in (*pair, shared):
            assert await b.sync.heard(NUMBER, "contact", number)
        await b.settled()
        assert len(await b.all(RecordType.USER)) == 5
        # People settle it, and it goes on.
        await b.box.methods["crm.contact.delete"](Params({"id": pair[1]}))
        await b.sync.retry(NUMBER, next(error["id"] for error in errors if error["local_id"] == lone.id))
        await b.change(RecordType.USER, both_of_us[0].id, phone="+375291112277")
        await b.sync.heard(NUMBER, "contact", shared)
        await b.settled()
        known = {one["local_id"]: one["bitrix24_id"] for one in await b.mappings() if one["local_type"] == "user"}
        assert (known[lone.id], known[both_of_us[1].id]) == (pair[0], shared)
        assert both_of_us[0].id in known
        assert (len(b.entities("CONTACT")), len(await b.all(RecordType.USER))) == (5, 5)
        errors, _ = await b.sync.errors.page(NUMBER, page=1, limit=10)
        assert [(error["remote_type"], error["remote_id"]) for error in errors if error["local_id"] is None] == []


async def test_a_contact_that_comes_first_is_joined_with_the_user_who_is_here(db: Database) -> None:
    async with both(db) as b:
        b.records.follower = None  # as if it was here before the portal was connected
        user = await b.make(RecordType.USER, name="Ирина Лис", phone="+375291112233")
        b.records.follower = b.sync.follow
        contact = await b.box.methods["crm.contact.add"](Params({"fields": {"NAME": "Ирина", "PHONE": [{"VALUE": "80291112233"}]}}))
        done = await b.finished(await b.sync.start(NUMBER, "from", {"types": ["user"]}))
        await b.settled()
        assert (done["total"], done["done"], done["failed"]) == (1, 1, 0)
        assert [(one["local_id"], one["bitrix24_id"]) for one in await b.mappings()] == [(user.id, contact)]
        assert (len(await b.all(RecordType.USER)), len(b.entities("CONTACT"))) == (1, 1)
        (conflict,) = (await b.mappings())[0]["conflicts"]
        assert (conflict["field"], {conflict["local"], conflict["remote"]}) == ("name", {"Ирина Лис", "Ирина"})


async def test_tasks_of_a_synced_deal_are_linked_and_followed_by_their_own_events(db: Database) -> None:
    async with both(db) as b:
        objects = [await b.make(RecordType.OBJECT, name=name) for name in ("Трактор", "Прицеп")]
        await b.settled()
        deals = {one["local_id"]: one["bitrix24_id"] for one in await b.mappings()}
        add, update, delete = (b.box.methods[f"tasks.task.{what}"] for what in ("add", "update", "delete"))

        async def linked() -> dict[int, list[tuple[str, str]]]:
            await b.settled()
            return {one["local_id"]: [(task["title"], task["url"]) for task in one["tasks"]] for one in await b.mappings()}

        fields = {"TITLE": "Заменить датчик", "RESPONSIBLE_ID": "12", "UF_CRM_TASK": [f"D_{deals[objects[0].id]}"]}
        task = int((await add(Params({"fields": fields})))["task"]["id"])
        url = f"{b.box.url}/company/personal/user/0/tasks/task/view/{task}/"
        assert await b.sync.heard(NUMBER, "task", task)
        assert await linked() == {objects[0].id: [("Заменить датчик", url)], objects[1].id: []}
        await update(Params({"taskId": task, "fields": {"TITLE": "Заменить два", "UF_CRM_TASK": [f"D_{deals[objects[1].id]}", "C_7"]}}))
        assert await b.sync.heard(NUMBER, "task", task)
        assert await linked() == {objects[0].id: [], objects[1].id: [("Заменить два", url)]}
        await delete(Params({"taskId": task}))
        assert await b.sync.heard(NUMBER, "task", task)
        assert await linked() == {objects[0].id: [], objects[1].id: []}
        b.box.scopes.discard("task")  # without the right there are no tasks, and all else goes on
        assert await b.sync.heard(NUMBER, "task", 99)
        await b.change(RecordType.OBJECT, objects[0].id, name="Трактор синий")
        await b.settled()
        assert b.box.data.entities["DEAL", deals[objects[0].id]].fields["TITLE"] == "Трактор синий"
        assert (await b.sync.errors.stats(NUMBER))["total"] == 0


async def test_what_a_sync_writes_is_told_once_it_is_stored(db: Database) -> None:
    async with both(db) as b:
        told: list[tuple[str, list[Any]]] = []
        b.sync.told = lambda enterprise, records: told.append((enterprise, [record.fields["phone"] for record in records]))
        contact = await b.box.methods["crm.contact.add"](Params({"fields": {"NAME": "Пётр", "PHONE": [{"VALUE": "+375291112233"}]}}))
        await b.sync.heard(NUMBER, "contact", contact)
        await b.settled()
        (row,) = b.box.data.entities["CONTACT", contact].multi["PHONE"]
        await b.there("contact", contact, PHONE=[{"ID": row["ID"], "VALUE": "+375291112244"}])
        await b.settled()
        await b.sync.heard(NUMBER, "contact", contact)  # an echo tells nobody anything
        await b.settled()
        assert told == [(NUMBER, ["+375291112233"]), (NUMBER, ["+375291112233", "+375291112244"])]


async def test_both_change_the_same_field_and_the_later_one_stands(db: Database) -> None:
    async with both(db) as b:
        user = await b.make(RecordType.USER, name="Ирина Лис", role="Диспетчер")
        await b.settled()
        (contact,) = b.entities("CONTACT")
        contact.fields["NAME"] = "Инна"
        contact.fields["DATE_MODIFY"] = "2020-01-01T00:00:00+03:00"  # long before
        await b.change(RecordType.USER, user.id, name="Ирина Рысь")
        await b.settled()
        assert (contact.fields["NAME"], contact.fields["LAST_NAME"]) == ("Ирина", "Рысь")
        contact.fields |= {"NAME": "Инна", "DATE_MODIFY": "2090-01-01T00:00:00+03:00"}
        await b.change(RecordType.USER, user.id, name="Ирма Рысь")
        await b.settled()
        assert (await b.get(RecordType.USER, user.id))["name"] == "Инна Рысь"
        conflicts = (await b.mappings())[0]["conflicts"]
        assert [(one["field"], one["won"], one["local"], one["remote"]) for one in conflicts][-1:] == [("name", "bitrix24", "Ирма Рысь", "Инна Рысь")]


@pytest.mark.parametrize(("fault", "place"), [("batch-lost", 1), ("500", 1), ("truncated", 1), ("500", 2)])
async def test_whatever_becomes_of_an_answer_nothing_is_made_twice(db: Database, fault: str, place: int) -> None:
    """Of the search for who is there already, and of the write: each is made when that was found out, and once."""
    async with both(db) as b:
        b.rig.allow(deadline_s=1.0 if fault == "batch-lost" else PATIENCE_S)
        async with b.rig.db.tenant(NUMBER) as connection:
            for number in range(5):
                phone = f"+37529111220{number}" if place == 2 else None  # who has a phone is searched for before
                await b.records.make(connection, NUMBER, RecordType.USER, {"name": f"Имя {number}", "phone": phone}, LOCAL)
        b.box.switches.fail_next.extend([*["pass"] * place, fault])
        b.rig.dispatcher.wake(NUMBER, "bitrix24")
        async with asyncio.timeout(WITHIN_S):
            while (left := await b.sync.waiting(NUMBER))["waiting"] + left["sending"] > 0:
                if not b.box.switches.fail_next:  # it had come to that: the next try is given all the time it needs
                    b.rig.allow(PATIENCE_S)
                await b.rig.hurry()
                await asyncio.sleep(0.1)
        assert sorted(entity.name for entity in b.entities("CONTACT")) == [f"Имя {number}" for number in range(5)]
        assert len(await b.mappings()) == 5
        assert (await b.sync.errors.stats(NUMBER))["total"] == 0


async def test_a_failing_record_is_tried_three_times_then_shown_and_can_be_retried(db: Database) -> None:
    async with both(db) as b:
        b.box.scopes.discard("crm")
        user = await b.make(RecordType.USER, name="Ирина Лис")
        assert [delivery["state"] for delivery in await b.settled()] == ["dead"]
        errors, total = await b.sync.errors.page(NUMBER, page=1, limit=10)
        assert (total, errors[0]["error_type"], errors[0]["local_id"], errors[0]["next_try_at"]) == (1, "auth", user.id, None)
        assert (await b.rig.outbox.connection_states(NUMBER)).get("bitrix24", {}).get("state", "ok") == "ok"  # calls go on
        assert b.box.secret not in str(errors)
        b.box.scopes.add("crm")
        await b.sync.retry(NUMBER, errors[0]["id"])
        await b.settled()
        assert (len(b.entities("CONTACT")), (await b.sync.errors.stats(NUMBER))["total"]) == (1, 0)
        with pytest.raises(NotFound):
            await b.sync.retry(NUMBER, errors[0]["id"])
        b.box.switches.fail_next.extend(["500"] * 3)
        await b.change(RecordType.USER, user.id, role="Мастер")
        b.rig.dispatcher.wake(NUMBER, "bitrix24")
        async with asyncio.timeout(WITHIN_S):
            while (await b.sync.waiting(NUMBER))["dead"] == 0:
                await b.rig.hurry()
                await asyncio.sleep(0.1)
        (error,), _ = await b.sync.errors.page(NUMBER, page=1, limit=10)
        assert (error["error_type"], error["attempts"], error["next_try_at"]) == ("network", 3, None)
        assert (await b.sync.errors.stats(NUMBER))["by_type"] == {"auth": 0, "network": 1, "validation": 0, "limit": 0}


async def test_calls_never_wait_for_a_sync_and_it_takes_one_request_at_a_time(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters.bitrix24 import deliver

    at_work, most, may_go_on = 0, 0, asyncio.Event()
    real = deliver.equalise

    async def held(connection: Any, batch: Any) -> Any:
        nonlocal at_work, most
        at_work, most = at_work + 1, max(most, at_work + 1)
        try:
            await may_go_on.wait()
            return await real(connection, batch)
        finally:
            at_work -= 1

    monkeypatch.setattr(deliver, "equalise", held)
    async with both(db) as b:
        async with b.rig.db.tenant(NUMBER) as connection:
            for number in range(230):
                await b.records.make(connection, NUMBER, RecordType.USER, {"name": f"Имя {number}"}, LOCAL)
        b.rig.dispatcher.wake(NUMBER, "bitrix24")
        await b.rig.until(lambda: at_work)
        await b.rig.live_call(a_call(id="3f2b8c4e-0000-4000-8000-000000000001"))
        await b.rig.until(lambda: b.box.finished())  # popup and journal went while the sync is held
        assert (at_work, most) == (1, 1)
        assert (await b.sync.waiting(NUMBER))["waiting"] == 30
        may_go_on.set()
        await b.settled()
        assert (most, len(b.entities("CONTACT"))) == (1, 230)


async def test_a_portal_that_was_down_is_probed_by_whatever_waits(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places kept for popups are not kept from the one try that a broken connection has."""
    from daemon.delivery import health

    monkeypatch.setattr(health, "FIRST_PAUSE_S", 0.2)
    monkeypatch.setattr(health, "MIN_TRIES", 3)
    async with both(db) as b:
        b.box.switches.fail_next.extend(["500"] * 3)
        for number in range(3):
            await b.make(RecordType.USER, name=f"Имя {number}")
            b.rig.dispatcher.wake(NUMBER, "bitrix24")
            async with asyncio.timeout(WITHIN_S):
                while len(b.box.switches.fail_next) > 2 - number:
                    await asyncio.sleep(0.02)
        await b.rig.until(lambda: any(state == "open" for *_, state, _ in b.rig.states))
        await b.rig.at_rest()
        await b.rig.hurry()
        await b.settled()
        assert len(b.entities("CONTACT")) == 3


async def test_long_syncs_take_everything_once_and_count_exactly(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    both_asked, step = asyncio.Event(), Bitrix24Jobs._step

    async def held(*what: Any) -> float | None:
        await both_asked.wait()
        return await step(*what)

    monkeypatch.setattr(Bitrix24Jobs, "_step", held)
    async with both(db) as b:
        b.records.follower = None  # as if all this was there before the portal was connected
        async with b.rig.db.tenant(NUMBER) as connection:
            for number in range(120):
                await b.records.make(connection, NUMBER, RecordType.USER, {"name": f"Имя {number}"}, LOCAL)
        b.records.follower = b.sync.follow
        for number in range(70):
            await b.box.methods["crm.deal.add"](Params({"fields": {"TITLE": f"Машина {number}"}}))
        job = await b.sync.start(NUMBER, "to", {})
        with pytest.raises(VochidError, match="running already"):
            await b.sync.start(NUMBER, "from", {})
        both_asked.set()
        done = await b.finished(job)
        assert (done["state"], done["total"], done["done"], done["failed"]) == ("done", 120, 120, 0)
        done = await b.finished(await b.sync.start(NUMBER, "from", {}))
        assert (done["state"], done["total"], done["done"], done["failed"]) == ("done", 190, 190, 0)
        assert (len(b.entities("CONTACT")), len(b.entities("DEAL")), len(await b.all(RecordType.OBJECT)), len(await b.all(RecordType.USER))) == (
            120,
            70,
            70,
            120,
        )
        again = await b.finished(await b.sync.start(NUMBER, "to", {"types": ["user"], "ids": [1, 2, 10**9]}))
        assert (again["total"], again["done"]) == (2, 2)
        none = await b.finished(await b.sync.start(NUMBER, "to", {"updated_since": "2090-01-01T00:00:00+03:00"}))
        assert (none["state"], none["total"], none["done"]) == ("done", 0, 0)
        assert len(b.box.data.entities) == 190
        with pytest.raises(NotFound):
            await b.sync.job("0400", job)


async def test_what_failed_together_is_tried_again_together(db: Database) -> None:
    async with both(db) as b:
        async with b.rig.db.tenant(NUMBER) as connection:
            for number in range(60):
                await b.records.make(connection, NUMBER, RecordType.OBJECT, {"name": f"Машина {number}"}, LOCAL)
        b.box.switches.fail_next.append("500")
        b.rig.dispatcher.wake(NUMBER, "bitrix24")
        await b.rig.until(lambda: b.box.switches.fail_next == type(b.box.switches.fail_next)())
        await b.rig.at_rest()
        assert await b.sync.waiting(NUMBER) == {"waiting": 60, "sending": 0, "dead": 0}
        before = len(b.box.requests)
        await b.rig.hurry()
        await b.settled()
        assert len(b.entities("DEAL")) == 60
        assert len(b.box.requests) - before == 3  # one look, and 48 and 12 written and read back


async def test_what_the_portal_has_no_place_for_yet_goes_out_and_stays_here(db: Database) -> None:
    """Without our block in its comments an entity says nothing of a role: what is entered here is written, and is no value that the portal insists on."""
    async with both(db) as b:
        contact = await b.box.methods["crm.contact.add"](Params({"fields": {"NAME": "Пётр"}}))
        await b.sync.heard(NUMBER, "contact", contact)
        await b.settled()
        (user,) = await b.all(RecordType.USER)
        entity = b.box.data.entities["CONTACT", contact]
        for role in ("Мастер", None, "Диспетчер"):
            await b.change(RecordType.USER, user.id, role=role)
            await b.settled()
            for _ in range(2):
                await b.sync.heard(NUMBER, "contact", contact)
                await b.settled()
            assert (await b.get(RecordType.USER, user.id))["role"] == role
            assert (role or "нет такой") in entity.fields["COMMENTS"] or role is None
            entity.fields["COMMENTS"] = ""  # people take the block away
            await b.sync.heard(NUMBER, "contact", contact)
            await b.settled()
            assert (await b.get(RecordType.USER, user.id))["role"] == role


async def test_entities_that_do_not_fit_into_one_answer_are_looked_at_in_parts(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters import http

    monkeypatch.setattr(http, "MAX_BODY_BYTES", 60_000)
    async with both(db) as b:
        for number in range(60):
            await b.box.methods["crm.contact.add"](Params({"fields": {"NAME": f"Имя {number}", "COMMENTS": "x" * 2_000}}))
        done = await b.finished(await b.sync.start(NUMBER, "from", {}))
        assert (done["total"], done["done"], done["failed"]) == (60, 60, 0)
        assert len(await b.all(RecordType.USER)) == 60
