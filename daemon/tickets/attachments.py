"""Our copies of attachments: fetched through the egress guard, kept in the store, served by signed links as long as recordings are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import structlog

from daemon.errors import NotFound
from daemon.model.call import Call
from daemon.recordings.links import RecordingLinks
from daemon.security.egress import EgressDenied
from daemon.store.attachments import AttachmentRepository, Due
from daemon.store.calls import CallRepository

DAY_S = 86_400.0
LOOK_S = 5.0  # for what is due by time, or was left by another daemon
FETCH_DEADLINE_S = 60.0
CLAIM_S = 120.0
AT_ONCE = 4
DELAYS_S = (5.0, 30.0, 300.0, 1_800.0, 7_200.0)
PART_BYTES = 256 * 1024

log = structlog.get_logger()


class Sessions(Protocol):
    """The guarded aiohttp sessions."""

    def for_url(self, url: str) -> aiohttp.ClientSession:
        """The session for https, or the narrower one for plain http."""


class Playable(Protocol):
    """What is needed of the recordings room."""

    async def one_for_crm(self, call: Call, index: int) -> tuple[str, str, int] | None:
        """Link, type and size of one recording."""


class TooMuch(Exception):
    """The file is larger than its type may be."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`most_bytes`: how large a type may be, None for one that is not taken; `days`: how long an enterprise keeps recordings."""

    most_bytes: Callable[[str], int | None]
    days: Callable[[str], int]


class Attachments:
    """Fetches, keeps and hands over. `base_url` stands before links that leave the house."""

    def __init__(
        self, store: AttachmentRepository, calls: CallRepository, sessions: Sessions, links: RecordingLinks, recordings: Playable, rules: Rules, base_url: str
    ) -> None:  # fmt: skip
        self.store = store
        self.links = links
        self._calls = calls
        self._sessions = sessions
        self._recordings = recordings
        self._rules = rules
        self._base_url = base_url
        self._due = asyncio.Event()

    def wake(self) -> None:
        """Something is to be fetched."""
        self._due.set()

    async def run(self) -> None:
        """Fetches what is due, AT_ONCE at a time."""
        while True:
            self._due.clear()
            found = await self.store.claim(AT_ONCE, CLAIM_S)
            if found:
                await asyncio.gather(*(self._fetch(due) for due in found))
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), LOOK_S)

    async def forget(self, enterprises: Mapping[str, Any]) -> None:
        """Drops the copies that are older than these enterprises keep recordings."""
        for enterprise in enterprises:
            await self.store.expire(enterprise, self._rules.days(enterprise))

    # -- handing over --------------------------------------------------------------------------------------------------------

    async def handed_over(self, enterprise: str, items: Any) -> list[dict[str, Any]]:
        """{name, url, mime, size} of each, with links made now; what is gone is left out."""
        handed = []
        for item in items:
            if "call" in item:
                found = await self._recording(enterprise, item)
            elif (
                "position" in item and (copy := await self.store.find(enterprise, item["message"], item["position"])) and copy["state"] in ("waiting", "stored")
            ):
                url = self._base_url + self.link(enterprise, str(copy["id"]), copy["name"])
                found = {"name": copy["name"], "url": url, "mime": copy["mime"], "size": copy["size"] if copy["size"] is not None else item["size"]}
            else:
                found = {key: item.get(key) for key in ("name", "url", "mime", "size")}
            if found is not None:
                handed.append({**found, "size": found["size"] or 0})
        return handed

    def link(self, enterprise: str, copy_id: str, name: str, lives_s: float | None = None) -> str:
        """The path of a link to a copy: as long as recordings are kept, or `lives_s`."""
        return self.links.link(enterprise, copy_id, 0, lives_s if lives_s is not None else self._rules.days(enterprise) * DAY_S, name=name)

    async def _recording(self, enterprise: str, item: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            call = Call.from_json(await self._calls.get(enterprise, item["call"]))
        except NotFound:
            return None
        found = await self._recordings.one_for_crm(call, item["index"])
        return {"name": item["name"], "url": found[0], "mime": found[1], "size": found[2]} if found else None

    # -- serving -----------------------------------------------------------------------------------------------------------------

    async def opened(self, signed: str) -> tuple[str, dict[str, Any]]:
        """The enterprise and the copy that a link opens. Raises NotFound."""
        claims = self.links.read(signed)
        copy = await self.store.by_id(claims.enterprise, claims.call_id, claims.epoch) if claims is not None else None
        if claims is None or copy is None:
            raise NotFound("there is no such attachment, or the link has ended")
        return claims.enterprise, copy

    async def parts(self, enterprise: str, copy_id: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`, PART_BYTES at a time."""
        while start < end:
            part = await self.store.part(enterprise, copy_id, start, min(PART_BYTES, end - start))
            if not part:
                return
            start += len(part)
            yield part

    # -- fetching ----------------------------------------------------------------------------------------------------------------

    async def _fetch(self, due: Due) -> None:
        try:
            data = await self._read(due)
        except EgressDenied as error:
            await self.store.failed(due, str(error.strerror), None)
        except TooMuch as error:
            await self.store.failed(due, str(error), None)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            refused = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
            reason = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"[:300]
            again = None if isinstance(refused, EgressDenied) or due.attempts > len(DELAYS_S) else DELAYS_S[due.attempts - 1]
            log.info("an attachment was not fetched", enterprise=due.enterprise, attempt=due.attempts, error=reason)
            await self.store.failed(due, reason, again)
        else:
            await self.store.stored(due, data)

    async def _read(self, due: Due) -> bytes:
        most = self._rules.most_bytes(due.mime)
        if most is None:
            raise TooMuch(f"files of type {due.mime} are not taken")
        data = bytearray()
        async with asyncio.timeout(FETCH_DEADLINE_S):
            async with self._sessions.for_url(due.url).get(due.url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer:
                if answer.status != 200:
                    raise ValueError(f"the address answers {answer.status}")
                async for chunk in answer.content.iter_chunked(65_536):
                    data += chunk
                    if len(data) > most:
                        raise TooMuch(f"the file is larger than {most} bytes")
        return bytes(data)
