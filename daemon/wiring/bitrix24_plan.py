"""What the Bitrix24 sync puts into the outbox: one delivery per record that is to be made equal with its counterpart."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from daemon.model.crm_record import RecordType
from daemon.model.delivery import Kind, Priority, Record
from daemon.store.pool import Connection

BITRIX24 = "bitrix24"
ENTITY_LANE = "bitrix_"  # the lane of an entity that is no record of ours yet


def lane(kind: RecordType, record_id: int) -> Record:
    """A record's lane: all that concerns it goes one after the other, whichever side it came from."""
    return Record(str(kind), str(record_id))


def entity_lane(entity_type: str, entity_id: int) -> Record:
    """The lane of an entity without a record."""
    return Record(f"{ENTITY_LANE}{entity_type}", str(entity_id))


async def plan(
    connection: Connection,
    enterprise: str,
    records: Sequence[Record],
    step: str,
    *,
    job: str | None = None,
    then: Sequence[str] = (),
    twin: int | None = None,
) -> None:
    """Puts records into the outbox, in the caller's transaction of that tenant.

    One that waits there untried does for what happens now as well, for it looks at both sides when its turn comes; it is held until this transaction
    ends, so that its turn comes after what happened was committed. One that failed and waits for its next try is due now: what happens now must not
    wait an hour behind it. What a `job` plans has keys of its own, by which the job counts it.
    `step`: push or pull, what brought it about; `then`: lanes that are pulled again when this is done; `twin`: an entity that may be the records'.
    """
    await connection.execute(
        "update deliveries set due_at = now() where id in (select id from deliveries where enterprise_number = $1 and integration = $2 "
        "and record = any ($3) and kind = $4 and state = 'waiting' and attempts > 0 and due_at > now() for update skip locked)",
        enterprise, BITRIX24, [str(record) for record in records], str(Kind.SYNC),
    )  # fmt: skip
    if job is None and not then and twin is None:
        waiting = await connection.fetch(
            "select record from deliveries where enterprise_number = $1 and integration = $2 and record = any ($3) and kind = $4 and state = 'waiting' "
            "and attempts = 0 for update skip locked",
            enterprise, BITRIX24, [str(record) for record in records], str(Kind.SYNC),
        )  # fmt: skip
        known = {row["record"] for row in waiting}
        records = [record for record in records if str(record) not in known]
    rows = [
        _row(record, job_key(job, record) if job is not None else f"{record}:{secrets.token_hex(8)}", step, then, twin) for record in dict.fromkeys(records)
    ]
    if rows:
        await connection.fetchval("select tell_of_records($1, $2)", enterprise, rows)


def job_key(job: str, record: Record) -> str:
    """By which a job finds what it planned."""
    return f"{job}:{record}"


def _row(record: Record, key: str, step: str, then: Sequence[str], twin: int | None) -> Mapping[str, Any]:
    payload = {"step": step, **({"then": list(then)} if then else {}), **({"twin": twin} if twin is not None else {})}
    return {
        "integration": BITRIX24, "record": str(record), "kind": str(Kind.SYNC), "key": key, "priority": int(Priority.SYNC), "payload": payload,
        "expires_s": None,
    }  # fmt: skip
