"""Tells the operator's webhook what is wrong, and when it is over; for those without Prometheus."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import asyncpg
import structlog

from daemon.security.vault import Vault
from daemon.store.pool import Database
from daemon.telemetry.alarms import OLD_DELIVERY_S
from daemon.telemetry.alerts import SEVERITIES, Key, PbxWatch, over, signed, webhook_body
from daemon.wiring.overview import Overview

LOOK_S = 10.0
SEND_DEADLINE_S = 10.0
AT_ONCE = 20
PURPOSE = "alerts"

log = structlog.get_logger()


class Alerts:
    """Looks every few seconds. The table of alerts is what all nodes share: whoever claims a row tells it."""

    def __init__(self, db: Database, vault: Vault, overview: Overview, url: str, node: str, look_s: float = LOOK_S) -> None:
        self._db = db
        self._keys = vault.derived_keys(PURPOSE)
        self._overview = overview
        self._url = url
        self._node = node
        self._look_s = look_s
        self._pbxs = PbxWatch()

    async def run(self) -> None:
        """Until it is stopped. The address is the operator's own: it may lie inside the network."""
        async with aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=SEND_DEADLINE_S)) as session:
            while True:
                try:
                    await self.look()
                    await self.tell(session)
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                    log.warning("alerts could not be looked at", error=str(error) or type(error).__name__)
                await asyncio.sleep(self._look_s)

    async def look(self) -> None:
        """Notes what began and what ended."""
        pbxs = (await self._overview.state(None))["pbxs"]
        troubles = await self._db.fetch("select * from connections_in_trouble($1)", OLD_DELIVERY_S)
        found: dict[Key, str] = {(row["enterprise_number"], row["code"], row["subject"]): row["detail"] for row in troubles}
        found |= self._pbxs.look(pbxs, time.monotonic())
        opened = {(row["enterprise_number"], row["code"], row["subject"]) for row in await self._db.fetch("select * from open_alerts()")}
        if new := [_row(key) | {"severity": SEVERITIES[key[1]], "detail": detail} for key, detail in found.items() if key not in opened]:
            await self._db.fetch("select begin_alerts($1)", new)
        if ended := over(opened, found, pbxs):
            await self._db.fetch("select end_alerts($1)", [_row(key) for key in ended])

    async def tell(self, session: aiohttp.ClientSession) -> None:
        """Tells the webhook what it was not told yet and what is due; what it does not take is due again later."""
        rows = await self._db.fetch("select * from claim_alerts($1, $2)", AT_ONCE, SEND_DEADLINE_S * 2)
        await asyncio.gather(*(self._tell_one(session, row) for row in rows))

    async def _tell_one(self, session: aiohttp.ClientSession, row: Any) -> None:
        told = "ended" if row["told"] == "began" else "began"
        body = webhook_body(row, self._node)
        headers = {"Content-Type": "application/json", **signed(self._keys, f"{row['id']}.{told}", int(time.time()), body)}
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                if answer.status >= 300:
                    log.warning("the alert webhook refuses", status=answer.status, code=row["code"], enterprise=row["enterprise_number"])
                    return
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("the alert webhook cannot be reached", error=type(error).__name__, code=row["code"], enterprise=row["enterprise_number"])
            return
        await self._db.fetch("select told_alert($1, $2)", row["id"], told)


def _row(key: Key) -> dict[str, str]:
    return dict(zip(("enterprise_number", "code", "subject"), key, strict=True))
