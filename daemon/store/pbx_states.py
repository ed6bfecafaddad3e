"""What is known of a PBX between two processes: its boot, and until when it was seen without a gap."""

from __future__ import annotations

from datetime import UTC, datetime

from daemon.store.pool import Database


class PbxStates:
    """One row per PBX."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, enterprise: str, pbx: str) -> tuple[str, float | None]:
        """Its boot's name and the Unix time it was last in step; empty and None for a new one."""
        async with self._db.tenant(enterprise) as connection:
            row = await connection.fetchrow("select boot, seen_at from pbx_states where enterprise_number = $1 and pbx = $2", enterprise, pbx)
        return (row["boot"], row["seen_at"].timestamp()) if row else ("", None)

    async def put(self, enterprise: str, pbx: str, boot: str, seen_at: float, owner: str, epoch: int) -> None:
        """Notes both; waits for no disk, as a minute more or less does not matter. Refused (VL001) when `owner` does not read the PBX now."""
        async with self._db.tenant(enterprise) as connection:
            await connection.execute("set local synchronous_commit = off")
            await connection.execute("select hold_lease($1, $2, $3, $4)", enterprise, pbx, owner, epoch)
            await connection.execute(
                "insert into pbx_states (enterprise_number, pbx, boot, seen_at) values ($1, $2, $3, $4) "
                "on conflict (enterprise_number, pbx) do update set boot = excluded.boot, seen_at = excluded.seen_at",
                enterprise, pbx, boot, datetime.fromtimestamp(seen_at, UTC),
            )  # fmt: skip
