"""Both sides of Bitrix24's sync change while requests fail and the daemon is killed: a short run of what `python -m lab.sync_storm` does at length."""

from __future__ import annotations

from daemon.store.pool import Database
from lab.run import DaemonProcess, short_directory
from lab.sync_storm import NUMBER, stage
from tests.conftest import fresh_database


async def hurry(db: Database) -> None:
    """Lets time pass: what waits is due, what a killed daemon held is free."""
    async with db.tenant(NUMBER) as connection:
        await connection.execute("update deliveries set due_at = now() where state = 'waiting' and due_at > now()")
        await connection.execute(
            "update deliveries set claimed_until = now() where state = 'sending' and claimed_by <> "
            "(select claimed_by from deliveries where claimed_by is not null order by claimed_until desc limit 1)"
        )
        await connection.execute("update sync_jobs set owned_until = now() where state = 'running' and owned_until < now() + interval '17 s'")


async def test_both_sides_are_equal_after_storms_a_kill_and_changes_on_both(cluster: str) -> None:
    async with fresh_database(cluster) as url:
        daemon = DaemonProcess(short_directory("vochid-sync-"), extra={"VOCHID_DATABASE_URL": url})
        report = await stage(daemon, url, 11, hurry, 0.5, 0.0, contacts=24, deals=16, kills=1)
    assert report.differences == []
    assert (report.contacts, report.deals, report.kills, report.refused_by_budget) == (24, 16, 1, 0)
    assert [job["direction"] for job in report.jobs] == ["to", "from", "from"]
