"""GET and HEAD /recordings/{signed}: the link is the key, nothing else is asked."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import aiohttp
import structlog
from aiohttp import web

from admin_http.problems import problem
from daemon.errors import NotFound
from daemon.recordings.directory import OpenFile
from daemon.recordings.names import UNKNOWN_TYPE, candidates, content_type, download_name, ending_of
from daemon.recordings.ranges import Part, Unsatisfiable, is_unchanged, wanted_part
from daemon.recordings.remote import chunks
from daemon.recordings.service import RETRY_AFTER_S, Busy, Found, NotReady, Recordings
from daemon.tenants.document import HttpRecordings

WRITE_DEADLINE_S = 30.0
FLUSH_STEP_S = 0.005
_CONDITIONS = ("Range", "If-Range", "If-None-Match", "If-Modified-Since")
_PASSED = ("Content-Range", "ETag", "Last-Modified")

log = structlog.get_logger()


async def serve_recording(request: web.Request, recordings: Recordings) -> web.StreamResponse:
    """The recording, whole or in part; 404 with Retry-After until it is whole."""
    try:
        found = await recordings.find(request.match_info["signed"])
        with recordings.download(found.claims.enterprise):
            async with recordings.opened(found) as file:
                if file is not None:
                    return await _send(request, recordings, found, file)
                return await _pass_through(request, recordings, found)
    except NotReady as error:
        return _later(404, error)
    except Busy as error:
        return _later(503, error)


def _later(status: int, error: NotReady | Busy) -> web.Response:
    response = problem(status, error.code, str(error))
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _headers(found: Found, name: str) -> dict[str, str]:
    kind = content_type(name)
    shown = download_name(found.name, ending_of(name))
    way = "attachment" if kind == UNKNOWN_TYPE else "inline"
    return {
        "Content-Type": kind,
        "Content-Disposition": f"{way}; filename=\"{shown}\"; filename*=UTF-8''{quote(shown)}",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform, max-age=300",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
    }


async def _send(request: web.Request, recordings: Recordings, found: Found, file: OpenFile) -> web.StreamResponse:
    headers = _headers(found, file.name)
    version = file.version
    if version.changed_ns:
        headers |= {"ETag": version.etag, "Last-Modified": version.last_modified}
    if is_unchanged(request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since"), version):
        return web.Response(status=304, headers=headers)
    try:
        part = wanted_part(request.headers.get("Range"), request.headers.get("If-Range"), version)
    except Unsatisfiable:
        return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{version.size}"})
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{version.size}"
    start, end = (part.start, part.end) if part else (0, version.size)
    response = web.StreamResponse(status=206 if part else 200, headers=headers)
    response.content_length = end - start
    await response.prepare(request)
    if request.method != "HEAD" and end > start:
        await _stream(request, recordings, file.fd, Part(start, end))
    return response


async def _stream(request: web.Request, recordings: Recordings, fd: int, part: Part) -> None:
    """Behind the headers, straight from the file to the socket."""
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport else None
    if transport is None or sock is None:
        raise ConnectionResetError("the asker has gone")
    try:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            while transport.get_write_buffer_size():  # noqa: ASYNC110 - the transport tells nobody when its buffer is empty
                await asyncio.sleep(FLUSH_STEP_S)
        await recordings.sender.send(sock.fileno(), fd, part.start, part.end - part.start)
    except (ConnectionError, OSError, TimeoutError) as error:
        log.info("a recording was not sent to its end", error=f"{type(error).__name__}: {error}"[:200])
        transport.abort()


async def _pass_through(request: web.Request, recordings: Recordings, found: Found) -> web.StreamResponse:
    """From the PBX's own web server, with the player's range and conditions."""
    assert isinstance(found.source, HttpRecordings)
    conditions = {name: request.headers[name] for name in _CONDITIONS if name in request.headers}
    for parts in candidates(found.parts):
        try:
            async with recordings.remote.open(found.source, parts, conditions) as answer:
                if answer.status in (404, 410):
                    continue
                if answer.status not in (200, 206, 304, 416):
                    raise Busy("the recordings' source does not answer")
                return await _relay(request, _headers(found, parts[-1]), answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("recordings' source failed", enterprise=found.claims.enterprise, error=f"{type(error).__name__}: {error}"[:200])
            raise Busy("the recordings' source does not answer") from None
    raise NotFound("there is no such recording")


async def _relay(request: web.Request, headers: dict[str, str], answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers |= {name: answer.headers[name] for name in _PASSED if name in answer.headers}
    if answer.status in (304, 416):
        return web.Response(status=answer.status, headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    if answer.content_length is not None:
        response.content_length = answer.content_length
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        async for chunk in chunks(answer):
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await response.write(chunk)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        log.info("a recording was not passed on to its end", error=f"{type(error).__name__}: {error}"[:200])
        if request.transport is not None:
            request.transport.abort()
    return response
