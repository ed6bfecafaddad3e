"""Completing from CDR: real sources, a real database; matched against what was seen live, told to the journal and to nobody's screen."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from pydantic import SecretStr

from adapters.retailcrm.deliver import RetailCrm
from daemon.calls.reconcile import Reconciliation
from daemon.cdr.service import Backfill, Done
from daemon.cdr.sources import CdrUnreadable, source_of
from daemon.errors import NotFound, SettingsError
from daemon.model.call import Result
from daemon.model.signal import Ended
from daemon.store.backfill import BackfillRepository
from daemon.store.calls import CallRepository
from daemon.store.pool import Database
from daemon.tenants.document import CsvCdr, DatabaseCdr, NoCdr
from lab.office import LINES, PHONES
from tests.cdr.test_conversations import calls_of, recorded
from tests.rig import NUMBER, Rig, a_call, rig

SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}
DAY = datetime(2026, 11, 21, tzinfo=UTC)
WINDOW = (DAY, DAY + timedelta(days=1))
FEW = ("inbound-answered", "inbound-not-answered", "ring-group", "outbound-busy", "internal-answered")


def rows_of(*names: str) -> list[str]:
    return [line for name in names or recorded() for line in recorded()[name]]


@pytest.fixture
def master(tmp_path: Path) -> Path:
    file = tmp_path / "Master.csv"
    file.write_text("\n".join(rows_of(*FEW)) + "\n")
    return file


@pytest.fixture
async def office(db: Database, master: Path) -> AsyncIterator[Rig]:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as running:
        pbx = {
            "name": "main", "host": "127.0.0.1", "trunks": ["PJSIP/provider"], "internal_number": "^1\\d\\d$", "cdr": {"source": "csv", "path": str(master)},
        }  # fmt: skip
        await running.tenants.put(
            NUMBER,
            {"number": NUMBER, "name": "Июнь", "pbxs": [pbx], "lines": [{"number": line} for line in LINES],
             "internal_phones": [{"number": phone, "owner": ""} for phone in PHONES], "integrations": {"retailcrm": SETTINGS}},
        )  # fmt: skip
        yield running


def backfill_of(office: Rig, woken: list[Any] | None = None) -> Backfill:
    return Backfill(office.tenants, BackfillRepository(office.db), office.recorder, lambda *news: woken.append(news) if woken is not None and news[1] else None)


async def test_what_was_not_seen_is_stored_once_journaled_and_shown_to_nobody(office: Rig) -> None:
    woken: list[Any] = []
    progress: list[tuple[int, int]] = []
    done = await backfill_of(office, woken).window(NUMBER, *WINDOW, progress=lambda *step: progress.append(step))
    assert (done.calls, done.stored) == (5, 5)
    assert (progress[0], progress[-1]) == ((0, 1), (1, 1))
    calls, _ = await CallRepository(office.db).page(NUMBER)
    assert {(call["direction"], call["result"]) for call in calls} == {
        ("in", "answered"), ("in", "no_answer"), ("out", "busy"), ("internal", "answered"),
    }  # fmt: skip
    assert all(call["gap"] for call in calls)
    told = await office.outbox.list(NUMBER)
    assert [delivery["kind"] for delivery in told] == ["journal"] * 4
    assert woken == [(NUMBER, {"retailcrm"})]
    assert await backfill_of(office).window(NUMBER, *WINDOW) == replace(done, stored=0)
    assert len(await office.outbox.list(NUMBER)) == 4


async def test_calls_that_were_seen_live_are_left_alone_by_linkedid_and_by_leg(office: Rig) -> None:
    [first] = calls_of(rows_of("inbound-answered"))
    [second] = calls_of(rows_of("ring-group"))
    by_linkedid = a_call(linkedid=first.linkedid, started_at=first.started_at + 0.4, ended_at=first.ended_at, legs=())
    by_leg = a_call(linkedid="other.1", started_at=second.started_at, ended_at=second.ended_at, legs=(replace(second.legs[0], ended_at=None),))
    for call in (by_linkedid, by_leg):
        await office.record(call, Ended(()))
    done = await backfill_of(office).window(NUMBER, *WINDOW)
    assert (done.calls, done.stored) == (5, 3)
    kept = {call["id"]: call for call in (await CallRepository(office.db).page(NUMBER))[0]}
    assert kept[by_linkedid.id]["talk_seconds"] == by_linkedid.talk_seconds
    assert kept[by_linkedid.id]["gap"] is False


async def test_a_call_whose_end_was_not_seen_is_completed_under_its_id_and_told_once(office: Rig) -> None:
    [told] = calls_of(rows_of("inbound-answered"))
    lost = a_call(
        linkedid=told.linkedid, started_at=told.started_at + 0.3, answered_at=None, ended_at=told.started_at + 0.5, result=Result.INTERRUPTED, talk_seconds=0.0,
        answered_by=None, last_talked=None, gap=True, legs=(),
    )  # fmt: skip
    await office.record(lost, Ended(()))
    await backfill_of(office).window(NUMBER, *WINDOW)
    call = await CallRepository(office.db).get(NUMBER, lost.id)
    assert (call["result"], call["answered_by"], call["talk_seconds"], call["gap"]) == ("answered", "150", 1.0, True)
    assert call["ended_at"] == "2026-11-21T12:10:17.000Z"
    assert len([delivery for delivery in await office.outbox.list(NUMBER) if delivery["call"] == lost.id]) == 1  # the journal, from before


def with_userfield(line: str, text: str) -> str:
    """A line of the PBX's Master.csv with its userfield (after the Uniqueid) filled in."""
    *fields, uniqueid, _, peer, linkedid, sequence = next(csv.reader([line]))
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow([*fields, uniqueid, text, peer, linkedid, sequence])
    return out.getvalue().strip()


async def test_a_recording_that_the_userfield_names_comes_to_the_call_and_is_told_without_a_popup(office: Rig, master: Path) -> None:
    new, whole, known, note = "inbound-answered", "outbound-busy", "ring-group", "inbound-not-answered"
    texts = {new: "audio:in-1.wav", whole: "audio:out-1.wav", known: "audio:group.mp3", note: "a note"}
    master.write_text("\n".join(with_userfield(line, text) for name, text in texts.items() for line in rows_of(name)) + "\n")
    ids = {}
    for name, recordings in ((whole, ()), (known, ("/var/spool/asterisk/monitor/group.wav",))):
        [told] = calls_of(rows_of(name))
        seen = a_call(linkedid=told.linkedid, started_at=told.started_at + 0.3, ended_at=told.ended_at, legs=(), recordings=recordings)
        ids[name] = seen.id
        await office.record(seen, Ended(()))
    done = await backfill_of(office).window(NUMBER, *WINDOW)
    assert (done.calls, done.stored) == (4, 3)  # two that were not seen, and the one that got its recording
    calls = {call["id"]: call for call in (await CallRepository(office.db).page(NUMBER))[0]}
    assert calls[ids[whole]]["recordings"] == ["out-1.wav"]
    assert calls[ids[known]]["recordings"] == ["/var/spool/asterisk/monitor/group.wav"]  # converted since: the same one
    assert sorted(call["recordings"] for key, call in calls.items() if key not in ids.values()) == [[], ["in-1.wav"]]
    kinds = [delivery["kind"] for delivery in await office.outbox.list(NUMBER) if delivery["call"] == ids[whole]]
    assert sorted(kinds) == ["journal", "recording"]
    assert (await backfill_of(office).window(NUMBER, *WINDOW)).stored == 0


async def test_a_call_that_still_lives_is_not_touched(office: Rig) -> None:
    [told] = calls_of(rows_of("inbound-answered"))
    living = replace(a_call(linkedid=told.linkedid, started_at=told.started_at, gap=True), ended_at=None, result=None)
    await office.record(living)
    await backfill_of(office).window(NUMBER, *WINDOW)
    assert (await CallRepository(office.db).get(NUMBER, living.id))["ended_at"] is None


@pytest.mark.parametrize(
    ("since", "until", "error"),
    [
        (DAY, DAY, SettingsError), (DAY, DAY - timedelta(days=1), SettingsError), (DAY - timedelta(days=40), DAY, SettingsError),
        (DAY + timedelta(days=36_500), DAY + timedelta(days=36_501), SettingsError),
    ],
)  # fmt: skip
async def test_a_window_that_cannot_be_is_refused(since: datetime, until: datetime, error: type[Exception], office: Rig) -> None:
    with pytest.raises(error):
        await backfill_of(office).window(NUMBER, since, until)
    with pytest.raises(NotFound):
        await backfill_of(office).window("0400", *WINDOW)


async def test_what_no_crm_confirmed_is_shown(office: Rig) -> None:
    first, second, inside = a_call(), a_call(started_at=1_763_701_900.0), a_call(direction="internal")
    await office.record(first, Ended(()))
    await office.record(second)  # nobody planned anything: it got lost, or the CRM was set up later
    await office.record(replace(inside, direction=calls_of(rows_of("internal-answered"))[0].direction), Ended(()))
    reconciliation = Reconciliation(BackfillRepository(office.db), office.crm)
    at = datetime.fromtimestamp(first.started_at, UTC)
    found = {d.call_id: d.state async for d in reconciliation.differences(NUMBER, at - timedelta(hours=1), at + timedelta(hours=1))}
    assert found == {first.id: "waiting", second.id: "missing"}
    async with office.db.tenant(NUMBER) as connection:
        await connection.execute("update deliveries set state = 'delivered'")
    found = {d.call_id: d.state async for d in reconciliation.differences(NUMBER, at - timedelta(hours=1), at + timedelta(hours=1))}
    assert found == {second.id: "missing"}


# -- sources -----------------------------------------------------------------------------------------------------------------------


async def test_a_directory_of_files_and_a_file_over_http_give_the_same_rows(master: Path) -> None:
    (master.parent / "Master.csv.1").write_text("rotated away, not a csv by its name")

    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=master.read_bytes()) if request.path == "/Master.csv" else web.Response(status=403)

    application = web.Application()
    application.router.add_get("/{name}", serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    try:
        by = [CsvCdr(source="csv", path=str(master)), CsvCdr(source="csv", path=str(master.parent)), CsvCdr(source="csv", url=f"{address}/Master.csv")]
        found = [await read(*WINDOW) for cdr in by if (read := source_of(cdr))]
        assert len(found[0]) == len(rows_of(*FEW))
        assert found[0] == found[1] == found[2]
        assert await source_of(by[0])(DAY + timedelta(days=9), DAY + timedelta(days=10)) == []  # type: ignore[misc]
        with pytest.raises(CdrUnreadable, match="403"):
            await source_of(CsvCdr(source="csv", url=f"{address}/secret"))(*WINDOW)  # type: ignore[misc]
        with pytest.raises(CdrUnreadable, match="there is no"):
            await source_of(CsvCdr(source="csv", path="/nowhere/Master.csv"))(*WINDOW)  # type: ignore[misc]
        assert source_of(NoCdr()) is None
    finally:
        await runner.cleanup()


FREEPBX = """create table cdr (calldate timestamp, clid text, src text, dst text, dcontext text, channel text, dstchannel text, lastapp text, lastdata text,
  duration int, billsec int, disposition text, amaflags int, accountcode text, uniqueid text, userfield text, did text, recordingfile text, linkedid text,
  sequence int)"""


async def test_a_table_gives_the_rows_that_the_file_gives(database_url: str, master: Path) -> None:
    [file] = [await read(*WINDOW) for read in [source_of(CsvCdr(source="csv", path=str(master)))] if read]
    owner = await asyncpg.connect(database_url)
    await owner.execute(FREEPBX)
    for row in file:
        await owner.execute(
            "insert into cdr values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 3, '', $13, '', '', 'call.wav', $14, $15)",
            datetime.fromtimestamp(row.start, UTC).replace(tzinfo=None), row.clid, row.src, row.dst, row.dcontext, row.channel, row.dstchannel, row.lastapp,
            row.lastdata, int(row.end - row.start), int(row.end - row.answer) if row.answer else 0, row.disposition, row.uniqueid, row.linkedid, row.sequence,
        )  # fmt: skip
    await owner.close()
    read = source_of(DatabaseCdr(source="postgresql", url=SecretStr(database_url), table="public.cdr"))
    assert read is not None
    assert sorted((replace(row, recording="") for row in await read(*WINDOW)), key=lambda row: row.sequence) == sorted(file, key=lambda row: row.sequence)
    for wrong in ("public.nothing", "public.calls"):
        with pytest.raises(CdrUnreadable):
            await source_of(DatabaseCdr(source="postgresql", url=SecretStr(database_url), table=wrong))(*WINDOW)  # type: ignore[misc]
    with pytest.raises(CdrUnreadable) as caught:
        await source_of(DatabaseCdr(source="postgresql", url=SecretStr("postgresql://who:hunter2@127.0.0.1:9/x")))(*WINDOW)  # type: ignore[misc]
    assert "hunter2" not in str(caught.value)
    with pytest.raises(CdrUnreadable) as caught:
        await source_of(DatabaseCdr(source="mysql", url=SecretStr("mysql://who:hunter2@127.0.0.1:9/x")))(*WINDOW)  # type: ignore[misc]
    assert "hunter2" not in str(caught.value)


def test_what_is_done_adds_up() -> None:
    assert Done(1, 2, 3) + Done(10, 20, 30) == Done(11, 22, 33)
