"""Recordings that the PBX serves over HTTP: looked at with HEAD, passed through with Range. No redirect is followed."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from daemon.recordings.look import MISSING, UNKNOWN, Look, State
from daemon.security.egress import EgressDenied, EgressPolicy
from daemon.tenants.document import HttpRecordings

CONNECT_S = 5.0
LOOK_S = 5.0
READ_S = 20.0
DOWNLOAD_S = 3_600.0
MAX_BYTES = 2 * 1024**3
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "vochid"}


def may_reach(text: str, policy: EgressPolicy) -> bool:
    """Whether recordings may be fetched from this literal address: public and private ones.

    Loopback only where VOCHID_EGRESS_ALLOW covers it (our own listeners stand there), link-local never (cloud metadata stands there).
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback:
        return policy.covers(address)
    return address.is_private or policy.permits(str(address))


class RemoteFiles:
    """The one session for all PBXs' recordings."""

    def __init__(self, policy: EgressPolicy) -> None:
        def make(info: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, address = info
            if not may_reach(str(address[0]), policy):
                raise EgressDenied(str(address[0]))
            made = socket.socket(family, kind, protocol)
            made.setblocking(False)
            return made

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=make, limit=512, limit_per_host=256, ttl_dns_cache=60, happy_eyeballs_delay=None),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=_HEADERS,
        )

    async def close(self) -> None:
        await self._session.close()

    async def look(self, source: HttpRecordings, parts: tuple[str, ...]) -> Look:
        """How the file stands now; a server that knows no HEAD is asked for the first byte."""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            look = await self._look(source, parts, "HEAD")
            return look if look is not None else (await self._look(source, parts, "GET") or UNKNOWN)
        return UNKNOWN

    async def _look(self, source: HttpRecordings, parts: tuple[str, ...], method: str) -> Look | None:
        headers = {"Range": "bytes=0-0"} if method == "GET" else {}
        timeout = aiohttp.ClientTimeout(total=LOOK_S, sock_connect=CONNECT_S)
        async with self._request(source, parts, method, headers, timeout) as answer:
            if answer.status in (404, 410):
                return MISSING
            if answer.status in (200, 206):
                return Look(State.THERE, _size(answer), _changed_at(answer))
            return None if method == "HEAD" and answer.status in (400, 405, 501) else UNKNOWN

    @asynccontextmanager
    async def open(self, source: HttpRecordings, parts: tuple[str, ...], conditions: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET with the player's range and conditions. Raises what aiohttp and the egress rule raise; the body is read with bounds by `chunks`."""
        timeout = aiohttp.ClientTimeout(total=DOWNLOAD_S, sock_connect=CONNECT_S, sock_read=READ_S)
        async with self._request(source, parts, "GET", conditions, timeout) as answer:
            yield answer

    def _request(self, source: HttpRecordings, parts: tuple[str, ...], method: str, headers: dict[str, str], timeout: aiohttp.ClientTimeout) -> Any:
        url = source.url.replace("{file}", "/".join(quote(part, safe="") for part in parts))
        password = source.password.get_secret_value() if source.password else ""
        if source.username:
            headers = {**headers, "Authorization": aiohttp.encode_basic_auth(source.username, password)}
        return self._session.request(method, URL(url, encoded=True), headers=headers, timeout=timeout, allow_redirects=False)


async def chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body in pieces; ends with ClientPayloadError at MAX_BYTES."""
    total, until = 0, time.monotonic() + DOWNLOAD_S
    async for chunk in answer.content.iter_chunked(65_536):
        total += len(chunk)
        if total > MAX_BYTES or time.monotonic() > until:
            raise aiohttp.ClientPayloadError("the recording is longer than allowed")
        yield chunk


def _size(answer: aiohttp.ClientResponse) -> int:
    ranged = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(ranged) if ranged.isascii() and ranged.isdigit() and len(ranged) < 18 else answer.content_length or 0


def _changed_at(answer: aiohttp.ClientResponse) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
