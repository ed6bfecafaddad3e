"""Recordings with a database, a CRM sandbox and real files: journals that wait, names that come later, links that end."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.errors import NotFound, VochidError
from daemon.model.signal import Ended
from daemon.recordings.links import RecordingLinks
from daemon.recordings.mp3 import Mp3Cache
from daemon.recordings.remote import RemoteFiles
from daemon.recordings.service import MAX_DOWNLOADS, Busy, Recordings
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.calls import CallRepository
from daemon.store.pool import Database
from lab.crm.retailcrm import RetailCrmSandbox
from tests.rig import NUMBER, Rig, a_call, rig

SOUND = b"RIFF" + b"x" * 1_000


@dataclass
class Studio:
    """A rig whose PBX records into `spool`."""

    rig: Rig
    room: Recordings
    crm: RetailCrmSandbox
    spool: Path


@asynccontextmanager
async def studio(db: Database, spool: Path) -> AsyncIterator[Studio]:
    sandbox = RetailCrmSandbox(codes=("150", "151"))
    await sandbox.start()
    settings = {"domain": sandbox.url, "api_key": sandbox.api_key, "send": {"popup_in": False, "hangup": False}}
    try:
        async with rig(db, RetailCrm(), settings) as r:
            document, _ = await r.tenants.document(NUMBER, sealed=True)
            pbx = {**document["pbxs"][0], "recordings": {"source": "directory", "path": str(spool), "pbx_path": "/m"}}
            await r.tenants.put(NUMBER, {**document, "pbxs": [pbx]})
            links = RecordingLinks(Vault(["k" * 40]).derived_keys("recordings"), lambda n: t.recordings_epoch if (t := r.tenants.get(n)) else None)
            mp3, remote = Mp3Cache(spool.parent / "mp3", None), RemoteFiles(EgressPolicy())
            room = Recordings(db, r.tenants, r.outbox, r.crm, r.dispatcher.wake, links, remote, mp3, "https://vochid.example.by")
            r.crm.recordings = room
            try:
                yield Studio(r, room, sandbox, spool)
            finally:
                await room.stop()
    finally:
        await sandbox.stop()


@pytest.fixture
async def on(db: Database, tmp_path: Path) -> AsyncIterator[Studio]:
    (tmp_path / "spool").mkdir()
    async with studio(db, tmp_path / "spool") as running:
        yield running


async def test_the_journal_waits_for_a_file_that_grows_and_takes_the_largest_of_several(on: Studio) -> None:
    call = a_call(started_at=time.time() - 50, answered_at=time.time() - 40, ended_at=time.time(), recordings=("/m/a.wav", "/m/b.wav", "/m/empty.wav"))
    (on.spool / "a.wav").write_bytes(SOUND)
    (on.spool / "empty.wav").write_bytes(b"R" * 44)
    await on.rig.record(call, Ended(()))
    on.room.expect(call)
    (waiting,) = await on.rig.outbox.list(NUMBER)
    assert (waiting["state"], waiting["payload"]) == ("waiting", {})
    (on.spool / "b.wav").write_bytes(SOUND * 2)
    await on.rig.settled()
    (entry,) = on.crm.journal.values()
    link = entry["recordUrl"].removeprefix("https://vochid.example.by/recordings/")
    found = await on.room.find(link)
    assert found.parts == ("b.wav",)
    assert found.claims.expires_at == pytest.approx(call.ended_at + 365 * 86_400, abs=60)


async def test_a_journal_whose_recording_never_comes_goes_after_its_time(on: Studio) -> None:
    call = a_call(started_at=time.time() - 50, answered_at=None, ended_at=time.time(), recordings=("/m/never.wav",))
    await on.rig.record(call, Ended(()))
    async with on.rig.db.tenant(NUMBER) as connection:
        held_s = await connection.fetchval("select extract(epoch from due_at - created_at)::float8 from deliveries")
    assert held_s == pytest.approx(30)
    await on.rig.hurry()
    on.rig.dispatcher.wake(NUMBER, "retailcrm")
    await on.rig.settled()
    (entry,) = on.crm.journal.values()
    assert "recordUrl" not in entry  # nobody answered and there is no file: a dead link helps nobody


async def test_a_name_that_comes_later_is_stored_and_told_without_a_popup(on: Studio) -> None:
    call = a_call(started_at=time.time() - 500, answered_at=time.time() - 480, ended_at=time.time() - 400)
    await on.rig.record(call, Ended(()))
    await on.rig.settled()
    (on.spool / "late.wav").write_bytes(SOUND)
    assert await on.room.attach(NUMBER, call.id, "/m/late.wav")
    assert not await on.room.attach(NUMBER, call.id, "/m/late.wav")
    told = await on.rig.settled()
    assert [(d["kind"], d["state"]) for d in told] == [("journal", "delivered"), ("recording", "delivered")]
    assert on.crm.duplicates == 1  # the same entry again, now with the link
    (logged,) = await CallRepository(on.rig.db).logs(NUMBER, event_type="recording")
    assert "recordUrl" in str(logged["request_data"])
    assert "/recordings/" not in str(logged["request_data"])  # a link opens the file: it is no thing for a log
    for unknown in (str(uuid.uuid4()), "nonsense"):
        with pytest.raises(NotFound):
            await on.room.attach(NUMBER, unknown, "x.wav")
    for name in ("", "a\r\nb.wav", "x" * 2_000):
        with pytest.raises(VochidError):
            await on.room.attach(NUMBER, call.id, name)


async def test_a_name_that_comes_while_the_journal_still_waits_goes_with_it(on: Studio) -> None:
    call = a_call(started_at=time.time() - 50, answered_at=time.time() - 40, ended_at=time.time(), recordings=("/m/a.wav",))
    await on.rig.record(call, Ended(()))
    (on.spool / "b.wav").write_bytes(SOUND)
    assert await on.room.attach(NUMBER, call.id, "/m/b.wav")
    async with on.rig.db.tenant(NUMBER) as connection:
        names = await connection.fetch("select payload -> 'call' -> 'recordings' as names from deliveries")
    assert [row["names"] for row in names] == [["/m/a.wav", "/m/b.wav"]] * 2


async def test_links_end_with_their_epoch_their_retention_and_their_place_in_the_call(on: Studio) -> None:
    old = time.time() - 400 * 86_400
    fresh, past = a_call(recordings=("/m/a.wav",), started_at=time.time() - 60, ended_at=time.time() - 40), a_call(recordings=("/m/a.wav",), started_at=old)
    for call in (fresh, past):
        await on.rig.record(call)
    link = lambda call, index=0: on.room.links.link(NUMBER, call.id, index, 3_600).removeprefix("/recordings/")  # noqa: E731
    good = link(fresh)
    assert (await on.room.find(good)).parts == ("a.wav",)
    for bad in (link(past), link(fresh, 1), "nonsense"):
        with pytest.raises(NotFound):
            await on.room.find(bad)
    await on.room.revoke(NUMBER)
    with pytest.raises(NotFound):
        await on.room.find(good)
    assert (await on.room.find(link(fresh))).parts == ("a.wav",)
    with pytest.raises(NotFound):
        await on.room.revoke("9999")


async def test_an_enterprises_downloads_have_a_bound_of_their_own(on: Studio) -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        for _ in range(MAX_DOWNLOADS):
            stack.enter_context(on.room.download(NUMBER))
        with pytest.raises(Busy):
            stack.enter_context(on.room.download(NUMBER))
        stack.enter_context(on.room.download("0400"))
    stack.enter_context(on.room.download(NUMBER))
    stack.close()


async def test_a_directory_that_cannot_be_read_says_busy_and_closes_what_it_opened(on: Studio) -> None:
    call = a_call(recordings=("/m/a.wav",), started_at=time.time() - 90, ended_at=time.time() - 60)
    await on.rig.record(call)
    (on.spool / "a.wav").write_bytes(SOUND)
    found = await on.room.find(on.room.links.link(NUMBER, call.id, 0, 3_600).removeprefix("/recordings/"))
    for _ in range(5):
        async with on.room.opened(found) as file:
            assert file is not None
    assert not [fd for fd in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{fd}").startswith(str(on.spool))]
    on.spool.rename(on.spool.with_name("away"))
    with pytest.raises(Busy):
        async with on.room.opened(found):
            pass
    await asyncio.sleep(0)
