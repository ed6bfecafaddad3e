"""Sums the days that are over, for reports: all that are there at the first start, then one a day and those that were changed later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from daemon.store.reports import ReportRepository

ROUND_S = 300.0
DAYS_AT_ONCE = 3  # days in one transaction
REST = 1.0  # rests as long as it worked: half of one connection at most


class ReportKeeper:
    """`zones` gives the enterprises there are, with their time zones."""

    def __init__(self, reports: ReportRepository, zones: Callable[[], Mapping[str, str]]) -> None:
        self._reports = reports
        self._zones = zones

    async def run(self) -> None:
        """For ever, in rounds."""
        while True:
            await self.round()
            await asyncio.sleep(ROUND_S)

    async def round(self) -> int:
        """One round over all enterprises; gives how many days were summed."""
        total = 0
        for number, zone in self._zones().items():
            while True:
                began = time.monotonic()
                done = await self._reports.sum_days(number, zone, DAYS_AT_ONCE)
                total += done
                await asyncio.sleep((time.monotonic() - began) * REST)
                if done == 0:
                    break
        return total
