"""What the calls so far tell of a customer."""

from __future__ import annotations

from collections.abc import Collection

from daemon.model.crm import Responsible
from daemon.store.pool import Database

LOOKED_BACK_DAYS = 180
LOOKED_AT = 20  # calls


class PastCalls:
    """Reads calls of one tenant by the customer's number."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def responsible(self, enterprise: str, number: str) -> Responsible | None:
        """The extension that talked with the customer last and the name that was shown last; None when there was no call."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                """select customer_name, last_talked from calls
                   where enterprise_number = $1 and customer_number = $2 and direction <> 'internal'
                     and started_at > now() - make_interval(days => $3)
                   order by started_at desc limit $4""",
                enterprise, number, LOOKED_BACK_DAYS, LOOKED_AT,
            )  # fmt: skip
        if not rows:
            return None
        talked = next((row["last_talked"] for row in rows if row["last_talked"] and not row["last_talked"].startswith("+")), None)
        return Responsible(None, talked, next((row["customer_name"] for row in rows if row["customer_name"]), None))

    async def names(self, enterprise: str, numbers: Collection[str]) -> dict[str, str]:
        """The name that these numbers were shown with last, in their latest calls; those without one are left out."""
        if not numbers:
            return {}
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                """select n.number, named.customer_name from unnest($2::text[]) as n (number), lateral (
                     select latest.customer_name from (
                       select customer_name, started_at from calls
                       where enterprise_number = $1 and customer_number = n.number
                       order by started_at desc limit $3) latest
                     where latest.customer_name is not null order by latest.started_at desc limit 1) named""",
                enterprise, list(numbers), LOOKED_AT,
            )  # fmt: skip
        return {row["number"]: row["customer_name"] for row in rows}
