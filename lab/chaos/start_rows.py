"""Rows about starts that cannot go well: a migration that fails, a newer schema, a lost key, a secret that cannot be read."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path

from daemon.store.migrate import MigrationError, migrate, migrations_dir
from lab.chaos.crms import RetailCrm
from lab.chaos.rows import RATE, Row, Size, accounted
from lab.chaos.world import World, world
from lab.run import short_directory

BROKEN = "create table chaos_half (n int); insert into chaos_half values (1); select 1 / (n - 1) from chaos_half;"
MENDED = "create table chaos_half (n int);"


async def migrations(row: Row, size: Size) -> None:
    """The next release's migration fails half-way, is mended, and is too new for this release, which comes back."""
    folder = short_directory("vochid-sql-")
    shutil.copytree(migrations_dir(), folder / "sql")
    try:
        async with world([[RetailCrm()]]) as place:
            place.start_traffic(RATE, size.seed)
            number = len(list((folder / "sql").glob("*.sql"))) + 1
            newer = folder / "sql" / f"{number:04d}_chaos.sql"
            await asyncio.sleep(1)
            async with place.blind():
                await place.daemon.stop(keep=True)
                row.tries()
                newer.write_text(BROKEN)
                row.survived += await _fails_and_leaves_nothing(place, folder / "sql", row)
                row.tries()
                await place.daemon.start()  # the former release goes on as if nothing had been
                row.survived += 1
            await asyncio.sleep(1)
            row.tries()
            newer.write_text(MENDED)
            applied = await asyncio.gather(*(migrate(place.database, folder / "sql") for _ in range(3)))  # beside the running daemon, by three at once
            row.survived += sorted(applied) == [0, 0, 1]
            async with place.blind():
                row.tries()
                await place.daemon.stop(keep=True)
                row.survived += await _is_refused(place, "install the newer version", row)
                await place.sql(f"drop table chaos_half; delete from schema_migrations where number = {number}")
                await place.daemon.start()
            await accounted(row, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _fails_and_leaves_nothing(place: World, directory: Path, row: Row) -> bool:
    try:
        await migrate(place.database, directory)
    except MigrationError as error:
        [left] = await place.sql("select to_regclass('chaos_half') is null as is_clean")
        row.notes.append(f"a migration that fails: {error}")
        return bool(left["is_clean"])
    return False


async def _is_refused(place: World, says: str, row: Row) -> bool:
    """The daemon does not start and says what to do."""
    try:
        await place.daemon.start()
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        row.notes.append(f"a newer schema: {last.removeprefix('vochid: ')}")
        return says in last
    return False


async def keys(row: Row, size: Size) -> None:
    """One enterprise's secret cannot be read; then the key is another one; then it is found again."""
    right, wrong = secrets.token_hex(32), secrets.token_hex(32)
    async with world([[RetailCrm()], [RetailCrm()]], extra={"VOCHID_SECRET_KEYS": right}) as place:
        hurt, well = place.shops
        place.start_traffic(RATE, size.seed)
        await asyncio.sleep(1)
        row.tries()
        await place.sql(
            "update enterprises set integrations_config = jsonb_set(integrations_config, '{retailcrm,api_key}', '{\"sealed\": \"x\"}') "
            f"where number = '{hurt.number}'; select 1"
        )
        await place.until_true(lambda: _complains(place, hurt.number), 60, "the daemon says whose secret is lost")
        crm = well.crms[0]
        assert isinstance(crm, RetailCrm)
        made = await well.pbx.call("inbound-answered", speed=4.0)
        await place.until(lambda: crm.popup_at(made.phone), 60, "the other enterprise's popup came")
        await place.daemon.put(hurt.document())
        row.survived += not await _complains(place, hurt.number)
        row.tries()
        async with place.blind():
            await place.daemon.stop(keep=True)
            place.daemon.extra["VOCHID_SECRET_KEYS"] = wrong
            await place.daemon.start()  # ready, for a person must be able to mend it
            complains = [await _complains(place, shop.number) for shop in place.shops]
            await place.daemon.stop(keep=True)
            for shop in place.shops:
                shop.pbx.connected.clear()
            place.daemon.extra["VOCHID_SECRET_KEYS"] = right
            await place.daemon.start()
        row.survived += all(complains) and not any([await _complains(place, shop.number) for shop in place.shops])
        await accounted(row, place)


async def _complains(place: World, number: str) -> bool:
    """Whether /health tells that a secret of this enterprise is to be set anew."""
    async with place.daemon.client() as client:
        problems = (await client.get("/health")).json()["problems"]
    return any(problem["enterprise"] == number and "set it anew" in problem["problem"] for problem in problems)
