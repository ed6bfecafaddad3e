"""What is known of a PBX between two processes: its boot, and until when it was seen without a gap."""

from __future__ import annotations

from datetime import UTC, datetime

from daemon.store.pool import Database


class PbxStates:
    """One row per PBX."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, enterprise: str, pbx: str) -> tuple[str, float | None, bool]:
        """Its boot's name, the Unix time it was last in step, and whether calls of it have no end yet; empty and None for a new one."""
        [row] = await self._db.fetch("select * from left_of($1, $2)", enterprise, pbx)
        return row["boot"] or "", row["seen_at"].timestamp() if row["seen_at"] else None, row["has_open"]

    async def put(self, enterprise: str, pbx: str, boot: str, seen_at: float, owner: str, epoch: int) -> None:
        """Notes both; waits for no disk, as a minute more or less does not matter. Refused (VL001) when `owner` does not read the PBX now."""
        await self._db.fetch("select note_seen($1, $2, $3, $4, $5, $6)", enterprise, pbx, boot, datetime.fromtimestamp(seen_at, UTC), owner, epoch)
