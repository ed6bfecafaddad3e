"""What was looked up and decided, as integration_logs keeps it; written beside the hot path."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

import asyncpg
import structlog

from daemon.store.pool import Database
from daemon.telemetry import metrics

MAX_WAITING = 5_000
MAX_BATCH = 500
PAUSE_S = 0.2  # decisions are written together
RETRY_S = 2.0

log = structlog.get_logger()
Row = dict[str, Any]


class DecisionLog:
    """A bounded queue before the table. Beyond MAX_WAITING the oldest are given up, and counted."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: deque[tuple[str, Row]] = deque()
        self._news = asyncio.Event()

    def note(self, enterprise: str, source: str, event_type: str, request: Mapping[str, object], response: Mapping[str, object], error: str | None) -> None:
        """Takes one row; never waits."""
        row = {
            "integration_type": source, "event_type": event_type, "request_data": dict(request), "response_data": dict(response),
            "status": "success" if error is None else "error", "error_message": error,
        }  # fmt: skip
        self._waiting.append((enterprise, row))
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            metrics.LOOKUP_UNLOGGED.inc()
        self._news.set()

    async def run(self) -> None:
        """Writes what waits, until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(PAUSE_S)
            self._news.clear()
            while self._waiting:
                try:
                    await self._write()
                except (ValueError, asyncpg.exceptions.DataError) as error:  # text that PostgreSQL cannot store: it must not block what follows
                    enterprise, _ = self._waiting.popleft()
                    log.warning("a decision cannot be stored", enterprise=enterprise, error=str(error)[:200])
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                    log.warning("decisions cannot be written", waiting=len(self._waiting), error=str(error)[:200])
                    await asyncio.sleep(RETRY_S)

    async def flush(self) -> None:
        """A last try, at the orderly stop."""
        while self._waiting:
            await self._write()

    async def _write(self) -> None:
        """The waiting rows of one enterprise; they leave the queue only when they are stored."""
        enterprise = self._waiting[0][0]
        batch = [item for item in self._waiting if item[0] == enterprise][:MAX_BATCH]
        async with self._db.tenant(enterprise) as connection:
            await connection.execute(
                """insert into integration_logs (enterprise_number, integration_type, event_type, request_data, response_data, status, error_message)
                   select e.number, l.integration_type, l.event_type, l.request_data, l.response_data, l.status, l.error_message
                   from jsonb_to_recordset($2) as l (integration_type text, event_type text, request_data jsonb, response_data jsonb, status text,
                     error_message text), enterprises e where e.number = $1""",
                enterprise, [row for _, row in batch],
            )  # fmt: skip
        written = {id(item) for item in batch}
        self._waiting = deque(item for item in self._waiting if id(item) not in written)
