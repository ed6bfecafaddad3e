"""One daemon among PBXs whose calls are known, CRM sandboxes and a PostgreSQL, with a cable between every two of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx

from daemon.store.embedded import EmbeddedPostgres
from daemon.store.migrate import migrate
from daemon.supervisor import Supervisor
from lab.cable import Cable
from lab.chaos.account import Account, settle
from lab.chaos.crms import Crm, RetailCrm
from lab.chaos.traffic import FIRST_NUMBER, LivingPbx, MadeCall, traffic
from lab.office import LINES, PHONES, REPOSITORY
from lab.run import DaemonProcess, short_directory

LINK_DEADLINE_S = 60.0
SETTLE_DEADLINE_S = 240.0
KEPT_LOG = REPOSITORY / "build/chaos-failed.log"
CALLS_PER_SHOP = 1_000_000  # numbers of one PBX's calls


@dataclass
class Shop:
    """One enterprise: a PBX behind a cable, and its CRMs."""

    number: str
    pbx: LivingPbx
    crms: Sequence[Crm]
    line: Cable = field(default_factory=lambda: Cable(0))
    blind: list[tuple[float, float]] = field(default_factory=list)
    cdr: Path | None = None

    def document(self) -> dict[str, Any]:
        cdr = {"cdr": {"source": "csv", "path": str(self.cdr)}} if self.cdr is not None else {}
        pbx = {
            "name": "main", "host": "127.0.0.1", "port": self.line.port, "username": self.pbx.username, "secret": self.pbx.secret,
            "trunks": ["PJSIP/provider"], "internal_number": "^1\\d\\d$", **cdr,
        }  # fmt: skip
        return {
            "number": self.number, "name": f"Shop {self.number}", "timezone": "UTC", "pbxs": [pbx], "lines": [{"number": line} for line in LINES],
            "internal_phones": [{"number": phone, "owner": ""} for phone in PHONES], "integrations": {crm.name: crm.settings() for crm in self.crms},
        }  # fmt: skip


class World:
    """`blind_from` and `blind_until` bracket what is done to the daemon or a line; everything else is in the parts themselves."""

    def __init__(self, daemon: DaemonProcess, database: str, to_db: Cable, shops: Sequence[Shop], postgres: EmbeddedPostgres | None) -> None:
        self.daemon = daemon
        self.database = database  # past the cable
        self.to_db = to_db
        self.shops = shops
        self.postgres = postgres
        self._stop = asyncio.Event()
        self._traffic: asyncio.Task[None] | None = None

    # -- traffic -------------------------------------------------------------------------------------------------------------

    def start_traffic(self, rate: float, seed: int, speed: float = 1.0) -> None:
        """About `rate` calls a second on every PBX, until `stop_traffic`."""
        self._stop.clear()
        self._traffic = asyncio.create_task(traffic([shop.pbx for shop in self.shops], rate, self._stop, seed, speed))

    async def stop_traffic(self) -> None:
        """Lets the calls that have begun end."""
        self._stop.set()
        if self._traffic is not None:
            await self._traffic

    async def linked(self) -> None:
        """Waits until the daemon is logged in everywhere and has looked at what lives."""
        await self.until(lambda: all(shop.pbx.is_heard for shop in self.shops), LINK_DEADLINE_S, "the daemon is logged in at every PBX")

    async def until(self, condition: Any, timeout_s: float, says: str) -> None:
        """Waits for a condition. Raises RuntimeError with what it was waiting for."""
        until = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > until:
                raise RuntimeError(f"not within {timeout_s:.0f} s: {says}; the log ends: {self.daemon.log.read_text(errors='replace')[-2000:]}")
            await asyncio.sleep(0.02)

    async def until_true(self, condition: Callable[[], Awaitable[bool]], timeout_s: float, says: str) -> None:
        """As `until`, for what has to be asked."""
        until = time.monotonic() + timeout_s
        while not await condition():
            if time.monotonic() > until:
                raise RuntimeError(f"not within {timeout_s:.0f} s: {says}")
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def blind(self, *shops: Shop) -> AsyncIterator[None]:
        """From now until every PBX is linked again after the block, calls may go unseen."""
        since = time.time()
        chosen = shops or tuple(self.shops)
        try:
            yield
        finally:
            await self.until(lambda: all(shop.pbx.is_heard for shop in chosen), LINK_DEADLINE_S, "the daemon is logged in again")
            for shop in chosen:
                shop.blind.append((since, time.time()))

    # -- the daemon and the database ---------------------------------------------------------------------------------------------

    async def kill_daemon(self, *, wait_for_lease: bool = False) -> None:
        """kill -9 and a new start. wait_for_lease: its time runs out by itself."""
        await self.daemon.kill()
        if not wait_for_lease:
            await self.bury()
        await self.daemon.start()

    async def bury(self) -> None:
        """What the dead daemon held is free and it is counted no more, as if its time were over."""
        await self.sql(
            "update leases set expires_at = '-infinity'; update nodes set expires_at = '-infinity'; "
            "update deliveries set claimed_until = now() where state = 'sending'"
        )

    async def sql(self, text: str) -> list[asyncpg.Record]:
        """As the owner, past the cable; waits while the database is away. Several statements give no rows."""
        for attempt in range(120):
            try:
                connection = await asyncpg.connect(self.database, timeout=10)
                try:
                    if ";" in text:
                        await connection.execute(text)
                        return []
                    return list(await connection.fetch(text))
                finally:
                    await connection.close()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                if attempt == 119:
                    raise
                await asyncio.sleep(0.5)
        raise AssertionError

    async def kill_postgres(self, number: signal.Signals) -> None:
        """Signals our own PostgreSQL's postmaster and waits until another one answers, which its keeper starts."""
        assert self.postgres is not None
        former = self.postgres._pid()
        assert former is not None
        os.kill(former, number)
        until = time.monotonic() + 60
        while not (self.postgres._pid() not in (None, former) and await self.postgres._answers()):
            if time.monotonic() > until:
                raise RuntimeError("PostgreSQL does not come up again")
            await asyncio.sleep(0.1)

    # -- the account -----------------------------------------------------------------------------------------------------------

    async def settled(self, timeout_s: float = SETTLE_DEADLINE_S) -> None:
        """Lets time pass for what waits, until nothing does and no call is open. Dead letters stay where they are: they count as lost."""
        until = time.monotonic() + timeout_s
        quiet_since: float | None = None
        while True:
            # What is throttled for a moment keeps its moment: the account's limit holds here too.
            await self.sql("update deliveries set due_at = now() where state = 'waiting' and due_at > now() + interval '4 s'; select 1")
            [row] = await self.sql(
                "select (select count(*) from deliveries where state in ('waiting', 'sending')) as open, "
                "(select count(*) from calls where ended_at is null) as live"
            )
            if row["open"] == row["live"] == 0:
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since > 1.5:
                    return
            else:
                quiet_since = None
            if time.monotonic() > until:
                raise RuntimeError(f"not settled: {dict(row)}; the log ends: {self.daemon.log.read_text(errors='replace')[-3000:]}")
            await asyncio.sleep(0.5)

    async def account(self) -> Account:
        """What became of every call."""
        total = Account()
        for shop in self.shops:
            rows = await self.sql(
                f"select customer_number, id::text, ended_at from calls where enterprise_number = '{shop.number}' and direction <> 'internal'"
            )
            told = {crm.name: crm.told() for crm in shop.crms}
            found = settle(shop.pbx.made, [dict(row) for row in rows], told, shop.blind, has_cdr=shop.cdr is not None)
            found.wrong = [f"{says}{await self._why(shop, says)}" for says in found.wrong]
            total.add(found)
        return total

    async def _why(self, shop: Shop, says: str) -> str:
        """What the daemon's own database knows about the number that a complaint names."""
        number = re.search(r"\+\d{12}", says)
        which = f"c.customer_number = '{number[0]}'" if number else "c.customer_number is null"
        told = "(integration, kind, state, attempts, uncertain, last_error)::text"
        rows = await self.sql(
            "select c.id::text, c.linkedid, c.direction, c.result, c.gap, c.started_at, c.ended_at, "
            f"array(select {told} from deliveries d where d.enterprise_number = c.enterprise_number and d.call_id = c.id order by d.id) as told "
            f"from calls c where c.enterprise_number = '{shop.number}' and {which}"
        )
        return "".join(f"\n      {dict(row)}" for row in rows)

    def made(self) -> list[MadeCall]:
        return [call for shop in self.shops for call in shop.pbx.made.values()]

    def keep_log(self) -> None:
        """The daemon's log, for who looks into what failed."""
        _keep_log(self.daemon)

    async def metrics(self) -> str:
        """What /metrics says."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://{self.daemon.metrics}/metrics", timeout=10)).text

    async def is_ready(self) -> bool:
        """What /readyz says."""
        async with httpx.AsyncClient(trust_env=False) as client:
            with contextlib.suppress(httpx.HTTPError):
                return (await client.get(f"http://{self.daemon.metrics}/readyz", timeout=10)).status_code == 200
        return False


@asynccontextmanager
async def world(
    shops: Sequence[Sequence[Crm]] | None = None,
    *,
    database: str | None = None,
    cdr: bool = False,
    extra: dict[str, str] | None = None,
    home: Path | None = None,
    kind: type[DaemonProcess] = DaemonProcess,
) -> AsyncIterator[World]:
    """Everything at work, calm: one PBX per entry of `shops` with these CRMs. `database`: the owner's URL of an empty, migrated one on a Unix
    socket; else a PostgreSQL of our own, below `home` when it is given. `kind`: how the daemon is started."""
    folder = short_directory("vochid-chaos-")
    postgres = EmbeddedPostgres(home or folder) if database is None else None
    keeper = Supervisor("chaos")
    built: list[Shop] = []
    to_db: Cable | None = None
    daemon: DaemonProcess | None = None
    try:
        if postgres is not None:
            await postgres.start(own=True)
            keeper.serve("postgres", postgres.keep)
            await migrate(postgres.url)
        url = postgres.url if postgres is not None else str(database)
        to_db, through = await _to_database(url, folder)
        for index, crms in enumerate(shops or [[RetailCrm()]]):
            master = folder / f"cdr{index}" if cdr else None
            if master is not None:
                master.mkdir()
            pbx = LivingPbx(f"pbx {index}", FIRST_NUMBER * (index + 1), master / "Master.csv" if master is not None else None)
            shop = Shop(f"{index:04d}", pbx, crms, cdr=master)
            built.append(shop)
            await pbx.start()
            shop.line = Cable(pbx.port, seed=index)
            await shop.line.mend()
            for crm in crms:
                await crm.start()
        daemon = kind(folder / "daemon", extra={"VOCHID_DATABASE_URL": through, **(extra or {})})
        daemon.data_dir.mkdir()
        await daemon.start()
        for shop in built:
            await daemon.put(shop.document())
        place = World(daemon, url, to_db, built, postgres)
        await place.linked()
        yield place
    except Exception:
        if daemon is not None:
            _keep_log(daemon)
        raise
    finally:
        if daemon is not None:
            if to_db is not None:
                await to_db.mend()
            await daemon.stop(keep=True)
        for shop in built:
            await shop.line.cut()
            await shop.pbx.stop()
            for crm in shop.crms:
                await crm.stop()
        if to_db is not None:
            await to_db.cut()
        await keeper.stop()
        if postgres is not None:
            await postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _keep_log(daemon: DaemonProcess) -> None:
    """All of it: what is raised carries only its end."""
    if daemon.log.exists():
        KEPT_LOG.parent.mkdir(exist_ok=True)
        shutil.copy(daemon.log, KEPT_LOG)


async def _to_database(url: str, folder: Path) -> tuple[Cable, str]:
    """A cable before a PostgreSQL's Unix socket, and the URL through it."""
    asked = parse_qs(urlsplit(url).query)
    host, port = asked["host"][0], asked.get("port", ["5432"])[0]
    name = f".s.PGSQL.{port}"
    cable = Cable(Path(host) / name, folder / name)
    await cable.mend()
    return cable, url.replace(f"host={host}", f"host={folder}")
