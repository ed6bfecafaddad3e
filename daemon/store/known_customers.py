"""Whom numbers belong to: users and companies of the enterprise's own records."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.model.crm_record import KnownAs, RecordType
from daemon.store.pool import Connection, Database

MOST_EACH = 3  # users, and companies, of one number
MOST_NAMED = 50  # numbers that a search by name looks for


class KnownCustomers:
    """Reads records of one tenant by phone, on an index."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def find(self, enterprise: str, numbers: Sequence[str]) -> dict[str, tuple[KnownAs, ...]]:
        """For each of these E.164 numbers that is known, whose it is: users first, of either the newest MOST_EACH."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch("select * from known_by_phone($1, $2, $3)", enterprise, list(numbers), MOST_EACH)
        found: dict[str, tuple[KnownAs, ...]] = {}
        for row in sorted(rows, key=lambda row: (row["type"] != RecordType.USER, -row["id"])):
            found[row["phone"]] = (*found.get(row["phone"], ()), KnownAs(RecordType(row["type"]), row["id"], row["name"]))
        return found


async def numbers_named(connection: Connection, enterprise: str, words: Sequence[str]) -> list[str]:
    """The numbers of users and companies whose names have each of these words (as words_of of sql/ gives them) in them, the newest MOST_NAMED of either;
    inside the caller's transaction of that tenant."""
    named = "enterprise_number = $1 and phone is not null and (select bool_and(strpos(folded(name), word) > 0) from unnest($2::text[]) as word)"
    both = " union ".join(f"(select phone from {table} where {named} order by id desc limit $3)" for table in ("crm_users", "crm_companies"))
    rows = await connection.fetch(both, enterprise, list(words), MOST_NAMED)
    return [row["phone"] for row in rows]
