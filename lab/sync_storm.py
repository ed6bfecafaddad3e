"""A portal and a daemon that sync both ways while both sides change, requests fail, events come late and in any order, and the daemon is killed:
afterwards both hold the same, nothing twice, and every count is exact.

python -m lab.sync_storm --contacts 10000 --deals 5000 --seed 7 --kills 2

The portal's real budget holds (50 requests, 2 drain a second). A portal sends no event twice: what it told while the daemon was down is only found by the
sync from it that ends the run. A few of the portal's contacts have the phone of a user here: those are the same, and are not made again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from adapters.bitrix24.sync_fields import ENTITY, from_portal
from daemon.model.crm_record import FIELDS, LOCAL, RecordChange, RecordType
from daemon.store.crm_records import CrmRecordRepository, RecordFilter
from daemon.store.mappings import SyncMappings
from daemon.store.pool import Connection, Database
from daemon.wiring.bitrix24_jobs import FAR_OFF_S
from daemon.wiring.bitrix24_plan import lane, plan
from lab.crm.bitrix24 import Bitrix24Sandbox
from lab.crm.bitrix24_data import Params
from lab.run import DaemonProcess, short_directory

NUMBER = "0367"
SYNC = "/api/integration/bitrix24"
STORM_EVERY = 20  # requests, on average, between two bursts of one to three that fail
STORM = ("503", "500-json", "503-limit", "reset", "truncated")
SETTLE_DEADLINE_S = 3_600.0
HURRY_S = 2.0
NOTE_EVERY_S = 30.0
Hurry = Callable[[Database], Awaitable[None]]


@dataclass
class Report:
    """What came of it."""

    contacts: int = 0
    deals: int = 0
    companies: int = 0
    twins: int = 0
    jobs: list[dict[str, Any]] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    kills: int = 0
    retried: int = 0
    requests: int = 0
    refused_by_budget: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)


class SyncStorm:
    """`hurry` lets time pass, where a run cannot wait for it; `pause_s`: between two changes; `kill_at`: after which share of a long sync
    the daemon is killed."""

    def __init__(self, daemon: DaemonProcess, box: Bitrix24Sandbox, db: Database, seed: int, hurry: Hurry, pause_s: float, kill_at: float) -> None:
        self._daemon, self._box, self._db = daemon, box, db
        self._random = random.Random(seed)
        self._hurry = hurry
        self._pause_s = pause_s
        self._kill_at = kill_at
        self._hurried = 0.0
        self._began = 0.0
        self._storm_at = 0
        self._records = CrmRecordRepository(db)
        self._mappings = SyncMappings(db)
        self._up = asyncio.Event()
        self._client = daemon.client()
        self.report = Report()

    def note(self, what: str) -> None:
        """For who watches a long run."""
        events = f", {self._box.events.sent} events" if self._box.events.sent else ""
        print(f"{time.monotonic() - self._began:7.1f} s  {what}: {len(self._box.requests)} requests{events}", file=sys.stderr, flush=True)

    async def run(self, contacts: int, deals: int, kills: int) -> Report:
        """Half of everything begins here, the other half at the portal."""
        self._began = time.monotonic()
        self._up.set()
        await self._begin(contacts, deals)
        self.note("begun")
        self._records.follower = self._follow
        self._box.listen(f"http://{self._daemon.http}/bitrix24/events")
        churn = asyncio.ensure_future(self._churn())
        try:
            for place, direction in enumerate(("to", "from")):
                await self._job(direction, kills=(kills + 1 - place) // 2)
        finally:
            churn.cancel()
            await asyncio.gather(churn, return_exceptions=True)
        self._box.switches.fail_next.clear()
        self.note("jobs done")
        await self._settle()
        self.note("settled")
        await self._job("from", kills=0)
        self.note("last job")
        await self._settle()
        self.note("settled again")
        await self._compare()
        if (self.report.contacts, self.report.deals) != (contacts, deals):
            self.report.differences.append(f"{self.report.contacts} contacts and {self.report.deals} deals instead of {contacts} and {deals}")
        await self._client.aclose()
        self.report.requests = len(self._box.requests)
        self.report.seconds = round(time.monotonic() - self._began, 1)
        return self.report

    # -- before --------------------------------------------------------------------------------------------------------------------

    async def _begin(self, contacts: int, deals: int) -> None:
        companies: list[int] = []
        contracts: list[int] = []
        async with self._db.tenant(NUMBER) as connection:
            for number in range(max(1, contacts // 100)):
                made = await self._records.make(connection, NUMBER, RecordType.COMPANY, {"name": f"ООО «Поле {number}»"}, LOCAL)
                companies.append(made.id)
            for number in range(deals // 4):
                fields = {"number": f"{number}/26", "starts_on": "2026-03-01", "company_id": self._random.choice([*companies, None])}
                contracts.append((await self._records.make(connection, NUMBER, RecordType.CONTRACT, fields, LOCAL)).id)
        async with self._db.tenant(NUMBER) as connection:
            for number in range(deals // 2 - deals // 4):
                fields = {"name": f"Трактор {number}", "imei": f"35{number:013}", "contract_id": self._random.choice([*contracts, None])}
                await self._records.make(connection, NUMBER, RecordType.OBJECT, fields, LOCAL)
            for number in range(contacts // 2):
                fields = {"name": f"Имя{number} Фамилия", "phone": f"+37529{1_000_000 + number}", "email": f"u{number}@example.com", "role": "Водитель"}
                await self._records.make(connection, NUMBER, RecordType.USER, fields, LOCAL)
        self.report.twins = contacts // 50
        for number in range(self.report.twins):
            phone = [{"VALUE": f"8 029 {1_000_000 + number}"}]
            await self._there("contact.add", fields={"NAME": f"Имя{number}", "LAST_NAME": "Фамилия", "PHONE": phone})
        for number in range(contacts - contacts // 2):
            phone = [{"VALUE": f"+37533{1_000_000 + number}"}]
            await self._there("contact.add", fields={"NAME": f"Там{number}", "LAST_NAME": "Портал", "PHONE": phone})
        for number in range(deals - deals // 2):
            await self._there("deal.add", fields={"TITLE": f"Прицеп {number}"})

    async def _there(self, method: str, **params: Any) -> Any:
        """Somebody does something at the portal."""
        return await self._box.methods[f"crm.{method}"](Params(params))

    @staticmethod
    async def _follow(connection: Connection, enterprise: str, change: RecordChange) -> None:
        """As the daemon follows changes of its own."""
        await plan(connection, enterprise, [lane(change.type, change.id)], "push")

    # -- meanwhile -----------------------------------------------------------------------------------------------------------------

    async def _job(self, direction: str, kills: int) -> None:
        """One long sync; the daemon is killed when it is a part of the way."""
        started = await self._ask("POST", f"{SYNC}/sync/{direction}", {"sync_objects": True, "sync_users": True})
        job = started.json()["job"]
        again = await self._ask("POST", f"{SYNC}/sync/{direction}", {}, refused=True)
        if again.status_code != 409:
            self.report.differences.append(f"a second sync was answered {again.status_code}")
        noted = time.monotonic()
        async with asyncio.timeout(SETTLE_DEADLINE_S):
            while (shown := (await self._ask("GET", f"{SYNC}/sync/{job}")).json())["state"] in ("queued", "running"):
                if time.monotonic() > noted + NOTE_EVERY_S:
                    noted = time.monotonic()
                    self.note(f"{direction} {shown['done']} and {shown['failed']} failed of {shown['total']}")
                if kills and shown["total"] and shown["done"] >= shown["total"] * self._kill_at:
                    kills -= 1
                    await self._kill()
                await self._let_time_pass()
                await asyncio.sleep(0.2)
        for _ in range(kills):  # it was over before it could be killed
            await self._kill()
        self.report.jobs.append(shown)
        self.note(f"job {direction} {shown}")
        if shown["state"] != "done" or shown["total"] != shown["done"] + shown["failed"]:
            self.report.differences.append(f"the sync {direction} does not add up: {shown}")

    async def _let_time_pass(self) -> None:
        if time.monotonic() - self._hurried > HURRY_S:
            self._hurried = time.monotonic()
            await self._hurry(self._db)

    async def _kill(self) -> None:
        """kill -9, and up again."""
        self._up.clear()
        self.note("kill")
        await self._daemon.kill()
        self.report.kills += 1
        await self._daemon.start()
        self.note("up")
        self._up.set()

    async def _churn(self) -> None:
        """Changes on both sides, and bad moments of the portal."""
        while True:
            await asyncio.sleep(self._pause_s * self._random.random() * 2)
            await self._up.wait()
            if len(self._box.requests) >= self._storm_at and not self._box.switches.fail_next:
                self._storm_at = len(self._box.requests) + self._random.randrange(2 * STORM_EVERY)
                burst = self._random.choices(STORM, k=self._random.randrange(1, 4))
                self._box.switches.fail_next.extend(burst)
                self.report.faults += len(burst)
            await (self._change_here() if self._random.random() < 0.5 else self._change_there())

    async def _change_here(self) -> None:
        kind = self._random.choice([RecordType.USER, RecordType.OBJECT])
        async with self._db.tenant(NUMBER) as connection:
            found = await connection.fetchval(f"select id from {kind.table} where enterprise_number = $1 order by random() limit 1", NUMBER)
            if found is None:
                return
            record = await self._records.locked(connection, NUMBER, kind, found)
            changed = {"role": f"Роль {self._random.random()}"} if kind is RecordType.USER else {"description": f"Здесь {self._random.random()}"}
            if self._random.random() < 0.5:
                changed = {"name": f"Здесь{self._random.randrange(10**6)} Имя"}
            await self._records.change(connection, NUMBER, record, changed, LOCAL)
        self.report.changes["here"] += 1

    async def _change_there(self) -> None:
        kind, entity_id = self._random.choice(list(self._box.data.entities))
        fields = {"NAME": f"Тут{self._random.randrange(10**6)}"} if kind == "CONTACT" else {"TITLE": f"Тут {self._random.randrange(10**6)}"}
        if kind in ("CONTACT", "DEAL"):
            await self._there(f"{kind.lower()}.update", id=entity_id, fields=fields)
            self.report.changes["there"] += 1

    async def _settle(self) -> None:
        """Until no event and no record is on its way; what was tried three times is tried again by hand."""
        async with asyncio.timeout(SETTLE_DEADLINE_S):
            while True:
                await self._let_time_pass()
                health = (await self._ask("GET", f"{SYNC}/health")).json()["data"]
                if self._box.events.is_empty and not health["records"]["waiting"] + health["records"]["sending"] and not health["errors_count"]:
                    return
                await self._retry()
                await asyncio.sleep(0.5)

    async def _retry(self) -> None:
        """What failed three times, or waits an hour for its last try, is tried again by hand."""
        errors = (await self._ask("GET", "/api/integration/errors", limit="500")).json()["data"]["items"]
        for error in errors:
            at = datetime.fromisoformat(error["next_try_at"]).timestamp() if error["next_try_at"] else None
            if at is None or at > time.time() + FAR_OFF_S:
                await self._ask("POST", f"/api/integration/errors/{error['id']}/retry", refused=True)
                self.report.retried += 1

    async def _ask(self, method: str, path: str, body: Any = None, *, refused: bool = False, **query: str) -> httpx.Response:
        for _ in range(120):
            await self._up.wait()
            with contextlib.suppress(httpx.TransportError):
                answer = await self._client.request(method, path, params={"enterprise": NUMBER, **query}, json=body)
                if refused or answer.status_code < 400:
                    return answer
                raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
            await asyncio.sleep(0.5)
        raise RuntimeError(f"{method} {path}: the daemon does not answer")

    # -- afterwards ----------------------------------------------------------------------------------------------------------------

    async def _compare(self) -> None:
        """Every record has one entity, every entity one record, and both say the same."""
        data, wrong = self._box.data, self.report.differences
        found, _ = await self._mappings.page(NUMBER, page=1, limit=10**6)
        by_record = {(RecordType(row["local_type"]), row["local_id"]): (row["bitrix24_type"].upper(), row["bitrix24_id"]) for row in found}
        numbers = {one.id: one.fields["number"] for one in await self._all(RecordType.CONTRACT)}
        seen: set[tuple[str, int]] = set()
        for kind in RecordType:
            for record in await self._all(kind):
                place = by_record.get((kind, record.id))
                if place is None or place not in data.entities:
                    wrong.append(f"{kind} {record.id} is not at the portal: {place}")
                    continue
                seen.add(place)
                view = {name: record.fields[name] for name in FIELDS[kind] if not name.endswith("_id")}
                if kind is RecordType.OBJECT:
                    view["contract"] = numbers.get(record.fields["contract_id"])
                if kind is RecordType.CONTRACT:
                    company = by_record.get((RecordType.COMPANY, record.fields["company_id"]))
                    view["company"] = str(company[1]) if company else None
                entity = self._box.methods[f"crm.{ENTITY[kind]}.get"]
                there = from_portal(kind, await entity(Params({"id": place[1]})), view, "BY")
                differing = [name for name in view if name in there and there[name] != view[name] and not (name == "ends_on" and view[name] is None)]
                if differing:
                    wrong.append(f"{kind} {record.id} differs in {differing}: {view} and {there}")
        wrong += [f"{place} at the portal is nobody's" for place in data.entities if place not in seen]
        doubles = [origin for origin, ids in data.by_origin.items() if len(ids) > 1]
        wrong += [f"{origin} was made more than once" for origin in doubles]
        counts = Counter(kind for kind, _ in data.entities)
        self.report.contacts, self.report.deals, self.report.companies = counts["CONTACT"], counts["DEAL"], counts["COMPANY"]
        self.report.refused_by_budget = self._box.over_budget

    async def _all(self, kind: RecordType) -> list[Any]:
        return await self._records.page(NUMBER, kind, RecordFilter(), limit=10**6)


async def stage(daemon: DaemonProcess, url: str, seed: int, hurry: Hurry, pause_s: float, kill_at: float, *, contacts: int, deals: int, kills: int) -> Report:
    """A portal, a running daemon on the database at `url`, and the storm between them."""
    box = Bitrix24Sandbox()
    box.switches.events_shuffled = True
    await box.start()
    try:
        await daemon.start()
        await daemon.put({"number": NUMBER, "name": "Июнь", "pbxs": [], "integrations": {"bitrix24": box.settings()}})
        db = await Database.open(url)
        try:
            return await SyncStorm(daemon, box, db, seed, hurry, pause_s, kill_at).run(contacts, deals, kills)
        finally:
            await db.close()
    finally:
        await daemon.stop()
        await box.stop()


async def _wait(_: Database) -> None:
    """A long run waits as long as it takes."""


async def _main(arguments: argparse.Namespace) -> int:
    from daemon.store.embedded import EmbeddedPostgres
    from daemon.store.migrate import migrate

    server = EmbeddedPostgres(short_directory("vochid-sync-"))
    await server.start(own=True)
    try:
        await migrate(server.url)
        daemon = DaemonProcess(short_directory("vochid-sync-"), extra={"VOCHID_DATABASE_URL": server.url})
        sizes = {"contacts": arguments.contacts, "deals": arguments.deals, "kills": arguments.kills}
        report = await stage(daemon, server.url, arguments.seed, _wait, arguments.pause, 1 / 3, **sizes)
    finally:
        await server.stop()
    for name in ("contacts", "deals", "companies", "twins", "changes", "faults", "kills", "retried", "requests", "refused_by_budget", "seconds"):
        print(f"{name:18} {getattr(report, name)}")
    for job in report.jobs:
        print(f"sync {job['direction']:13} {job['state']}, total {job['total']} = done {job['done']} + failed {job['failed']}")
    for difference in report.differences[:50]:
        print(difference)
    print("both sides are equal" if not report.differences else f"{len(report.differences)} DIFFERENCES")
    return 1 if report.differences else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contacts", type=int, default=10_000)
    parser.add_argument("--deals", type=int, default=5_000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two changes, on average")
    sys.exit(asyncio.run(_main(parser.parse_args())))
