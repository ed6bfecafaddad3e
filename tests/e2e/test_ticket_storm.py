"""Two daemons talk over a bad line and are killed: a short run of what `python -m lab.ticket_storm` does at length."""

from __future__ import annotations

import asyncpg

from lab.run import DaemonProcess, short_directory
from lab.ticket_storm import Party, Report, Storm, stage
from tests.conftest import fresh_database

MESSAGES, KILLS, SEED = 150, 2, 11


async def test_both_sides_hold_the_same_after_resets_timeouts_duplicates_reordering_and_kills(cluster: str) -> None:
    async with fresh_database(cluster) as one, fresh_database(cluster) as other:
        daemons = [DaemonProcess(short_directory("vochid-storm-"), extra={"VOCHID_DATABASE_URL": url}) for url in (one, other)]

        async def hurry(party: Party) -> None:
            """Lets time pass: what waits is due, what a killed daemon held is free."""
            connection = await asyncpg.connect(party.daemon.extra["VOCHID_DATABASE_URL"])
            try:
                await connection.execute("update deliveries set due_at = now() where state = 'waiting' and due_at > now()")
                alive = await connection.fetchval("select count(distinct claimed_by) from deliveries where state = 'sending'")
                if alive > 1 or party.said >= MESSAGES // 2:
                    await connection.execute("update deliveries set claimed_until = now() where state = 'sending' and claimed_until < now() + interval '18 s'")
            finally:
                await connection.close()

        async def run(parties: list[Party]) -> Report:
            return await Storm(parties, MESSAGES, SEED, KILLS, hurry, print).run()

        report = await stage(*daemons, SEED, run)
    assert report.differences == []
    assert report.messages == report.tickets + MESSAGES
    assert report.kills == KILLS
    assert report.faults.keys() >= {"refuse", "lost", "late", "twice", "again", "pass"}
