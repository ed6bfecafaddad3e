"""Recordings from outside: a call whose recording lies in a directory, its journal's link, and all that players and strangers ask of it."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.e2e.conftest import NUMBER, House
from tests.e2e.test_api import is_problem

ONE = f"/api/enterprises/{NUMBER}"
AUDIO = b"RIFF" + bytes(range(256)) * 400


@pytest.fixture
async def spool(tmp_path: Path) -> Path:
    (tmp_path / "monitor").mkdir()
    return tmp_path / "monitor"


def with_recordings(document: dict[str, Any], recordings: dict[str, Any]) -> dict[str, Any]:
    return {**document, "pbxs": [{**document["pbxs"][0], "recordings": recordings}]}


async def a_call(house: House, *names: str, ended_s_ago: float | None = 3_600) -> str:
    """A stored call with these recordings."""
    call_id, now = str(uuid.uuid4()), time.time()
    url = house.daemon.extra["VOCHID_DATABASE_URL"]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "insert into calls (enterprise_number, id, pbx, linkedid, direction, started_at, answered_at, ended_at, wait_seconds, talk_seconds, result, "
            "missed, rang, transfers, click_to_call, consult, recordings, gap) values ($1, $2, 'main', '1.1', 'in', to_timestamp($3), to_timestamp($3), "
            "to_timestamp($4), 1, 1, 'answered', false, '{}', '[]', false, false, $5, false)",
            NUMBER, uuid.UUID(call_id), now - 4_000, None if ended_s_ago is None else now - ended_s_ago, list(names),
        )  # fmt: skip
    finally:
        await connection.close()
    return call_id


async def links_of(api: httpx.AsyncClient, call_id: str) -> list[str]:
    return [item["url"] for item in (await api.get(f"{ONE}/calls/{call_id}/recordings")).json()["items"]]


@pytest.fixture
def stranger(house: House) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{house.daemon.http}", trust_env=False, timeout=60)


async def test_a_recording_is_played_whole_and_in_parts_and_revoked(house: House, api: httpx.AsyncClient, stranger: httpx.AsyncClient, spool: Path) -> None:
    await api.put(ONE, json=with_recordings(house.document, {"source": "directory", "path": str(spool)}))
    (spool / "2026").mkdir()
    (spool / "2026" / "a b.wav").write_bytes(AUDIO)
    os.utime(spool / "2026" / "a b.wav", (1_700_000_000, 1_700_000_000))
    call_id = await a_call(house, "/var/spool/asterisk/monitor/2026/a b.wav")
    (link,) = await links_of(api, call_id)
    assert link.startswith("/recordings/")
    assert link.endswith(".wav")
    async with stranger:
        whole = await stranger.get(link)
        assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, AUDIO, "audio/wav")
        assert whole.headers["content-disposition"] == "inline; filename=\"a_b.wav\"; filename*=UTF-8''a_b.wav"
        assert whole.headers["x-content-type-options"] == "nosniff"
        head = await stranger.head(link)
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(AUDIO)), b"")
        part = await stranger.get(link, headers={"Range": "bytes=4-99", "If-Range": whole.headers["etag"]})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, AUDIO[4:100], f"bytes 4-99/{len(AUDIO)}")
        assert (await stranger.get(link, headers={"Range": "bytes=-10"})).content == AUDIO[-10:]
        assert (await stranger.get(link, headers={"Range": "bytes=10-20,30-40"})).content == AUDIO
        assert (await stranger.get(link, headers={"Range": "bytes=4-99", "If-Range": '"other"'})).status_code == 200
        beyond = await stranger.get(link, headers={"Range": f"bytes={len(AUDIO)}-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(AUDIO)}")
        assert (await stranger.get(link, headers={"If-None-Match": whole.headers["etag"]})).status_code == 304
        assert (await stranger.get(link, headers={"If-Modified-Since": whole.headers["last-modified"]})).status_code == 304
        token = link.removeprefix("/recordings/")
        for wrong in (token[:-6] + "A.wav", "x" + token, token[1:], "A" * 90, "%00", "..%2f..%2fetc%2fpasswd", "é" * 20, "A" * 5_000):
            is_problem(await stranger.get(f"/recordings/{wrong}"), 404)
        assert (await api.post(f"{ONE}/recordings/revoke")).status_code == 204
        is_problem(await stranger.get(link), 404, "not_found")
        assert (await stranger.get((await links_of(api, call_id))[0])).status_code == 200


async def test_no_name_leads_out_of_the_directory(house: House, api: httpx.AsyncClient, stranger: httpx.AsyncClient, spool: Path) -> None:
    await api.put(ONE, json=with_recordings(house.document, {"source": "directory", "path": str(spool)}))
    secret = spool.parent / "secret.wav"
    secret.write_bytes(AUDIO)
    (spool / "link.wav").symlink_to(secret)
    (spool / "up").symlink_to(spool.parent)
    (spool / "pipe.wav").mkdir()
    os.mkfifo(spool / "fifo.wav")
    root = "/var/spool/asterisk/monitor"
    names = [f"{root}/../secret.wav", f"{root}/link.wav", f"{root}/up/secret.wav", str(secret), f"{root}/pipe.wav", f"{root}/fifo.wav", f"{root}/x\r\nA: b.wav",
             f"{root}/", root, "", f"{root}/" + "a" * 300, f"{root}/" + "a/" * 100, "/etc/passwd"]  # fmt: skip
    call_id = await a_call(house, *names)
    links = await links_of(api, call_id)
    assert len(links) == len(names)
    async with stranger:
        for name, link in zip(names, links, strict=True):
            answer = await stranger.get(link)
            assert answer.status_code == 404, name


async def test_a_link_answers_404_with_retry_after_until_the_file_is_whole(
    house: House, api: httpx.AsyncClient, stranger: httpx.AsyncClient, spool: Path
) -> None:
    await api.put(ONE, json=with_recordings(house.document, {"source": "directory", "path": str(spool)}))
    (spool / "live.wav").write_bytes(AUDIO)
    os.utime(spool / "live.wav", (1_700_000_000, 1_700_000_000))
    living, fresh = await a_call(house, "live.wav", ended_s_ago=None), await a_call(house, "coming.wav", ended_s_ago=-3600)  # whatever the pace, just ended
    async with stranger:
        for call_id in (living, fresh):
            answer = await stranger.get((await links_of(api, call_id))[0])
            is_problem(answer, 404, "not_ready")
            assert int(answer.headers["retry-after"]) > 0
        (spool / "coming.mp3").write_bytes(AUDIO)  # the PBX converted it
        os.utime(spool / "coming.mp3", (1_700_000_000, 1_700_000_000))
        answer = await stranger.get((await links_of(api, fresh))[0])
        assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")


async def test_the_journal_goes_with_the_link_once_the_recording_is_whole(
    house: House, api: httpx.AsyncClient, stranger: httpx.AsyncClient, spool: Path
) -> None:
    trace = (Path(__file__).parent.parent / "golden/inbound-answered/asterisk-22.ami").read_bytes().decode()
    name = next(line for line in trace.split("Variable: MIXMONITOR_FILENAME\r\n")[1].split("\r\n") if line.startswith("Value: "))[7:]
    folder, _, file = name.rpartition("/")
    await api.put(ONE, json=with_recordings(house.document, {"source": "directory", "path": str(spool), "pbx_path": folder}))
    await house.linked()
    await house.play("inbound-answered")
    async with asyncio.timeout(30):
        while not (await api.get(f"{ONE}/deliveries?state=waiting")).json()["items"]:
            await asyncio.sleep(0.05)
    assert house.crm.journal == {}
    (spool / file).write_bytes(AUDIO)
    await house.settled(1)
    (entry,) = house.crm.journal.values()
    assert len(entry["recordUrl"]) <= 255
    async with stranger:
        played = await stranger.get(entry["recordUrl"])
        assert (played.status_code, played.content) == (200, AUDIO)
    logs = await api.get(f"{ONE}/logs?event_type=journal")
    assert entry["recordUrl"] not in logs.text
    assert "recordUrl" in logs.text


async def test_an_http_source_is_passed_through_with_range_and_no_redirect_is_followed(
    house: House, api: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    from aiohttp import web

    seen: list[tuple[str, str | None, str | None]] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        seen.append((request.raw_path, request.headers.get("Authorization"), request.headers.get("Range")))
        if "moved" in request.path:
            raise web.HTTPFound("/rec/there.wav")
        if "gone" in request.path:
            raise web.HTTPNotFound
        if request.headers.get("Range") == "bytes=0-3":
            return web.Response(status=206, body=AUDIO[:4], headers={"Content-Range": f"bytes 0-3/{len(AUDIO)}"})
        return web.Response(body=AUDIO, headers={"ETag": '"v1"', "Set-Cookie": "a=b"})

    pbx = web.Application()
    pbx.router.add_get("/{tail:.*}", serve)
    runner = web.AppRunner(pbx)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        source = {"source": "http", "url": f"http://127.0.0.1:{port}/rec/{{file}}", "username": "u", "password": "p-secret", "pbx_path": "/m"}
        await api.put(ONE, json=with_recordings(house.document, source))
        call_id = await a_call(house, "/m/2026/a b#.wav", "/m/moved.wav", "/m/gone.wav")
        there, moved, gone = await links_of(api, call_id)
        async with stranger:
            whole = await stranger.get(there)
            assert (whole.status_code, whole.content, whole.headers["etag"], whole.headers["content-type"]) == (200, AUDIO, '"v1"', "audio/wav")
            assert "set-cookie" not in whole.headers
            assert seen[0][:2] == ("/rec/2026/a%20b%23.wav", "Basic dTpwLXNlY3JldA==")
            part = await stranger.get(there, headers={"Range": "bytes=0-3"})
            assert (part.status_code, part.content, part.headers["content-range"]) == (206, AUDIO[:4], f"bytes 0-3/{len(AUDIO)}")
            is_problem(await stranger.get(moved), 503, "busy")
            is_problem(await stranger.get(gone), 404, "not_found")
        assert not any("there.wav" in path for path, *_ in seen)
    finally:
        await runner.cleanup()


async def test_the_kept_routes_of_the_settings_cache(house: House, api: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    await api.put(ONE, json={**house.document, "secret": "the-enterprises-own-secret"})
    await api.put("/api/enterprises/0400", json={**house.document, "number": "0400", "pbxs": [], "paused": True})
    own = {"X-Enterprise-Secret": "the-enterprises-own-secret"}
    async with stranger:
        for prefix in ("/api", "/retailcrm/api", "/retailcrm-admin/api"):
            assert (await api.post(f"{prefix}/config-cache/refresh/{NUMBER}")).json() == {"success": True, "enterprise_number": NUMBER}
            is_problem(await api.post(f"{prefix}/config-cache/refresh/9999"), 404, "not_found")
            assert (await api.post(f"{prefix}/config-cache/refresh-all")).json() == {"success": True, "refreshed": 2}
            for path in (f"{prefix}/config-cache/active-enterprises", f"{prefix}/active-enterprises"):
                assert (await api.get(path)).json()["items"] == [{"enterprise_number": NUMBER, "name": "Июнь", "integrations": ["retailcrm"]}]
                assert (await stranger.get(path, headers=own)).json()["count"] == 1
            assert (await stranger.post(f"{prefix}/config-cache/refresh/{NUMBER}", headers=own)).status_code == 200
            is_problem(await stranger.post(f"{prefix}/config-cache/refresh/0400", headers=own), 404)
            is_problem(await stranger.post(f"{prefix}/config-cache/refresh-all", headers=own), 403)
