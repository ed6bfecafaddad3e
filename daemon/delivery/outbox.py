"""The outbox in PostgreSQL: claim, settle, and what people see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daemon.delivery.letters import DeliveryFilter
from daemon.delivery.verdict import Verdict
from daemon.errors import NotFound, VochidError
from daemon.model.call import Call, iso
from daemon.model.delivery import Delivery, Exchange, Kind, Planned, Policy, Record
from daemon.store.pool import Connection, Database

OPEN_STATES = ("waiting", "dead")
MAX_AT_ONCE = 5_000
RETRY = "state = 'waiting', due_at = now(), expires_at = null, finished_at = null, attempts = case state when 'dead' then 0 else attempts end"
DISCARD = "state = 'discarded', finished_at = now()"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery in our hands, and what its former attempts left unclear."""

    delivery: Delivery
    is_uncertain: bool
    waited_s: float


@dataclass(frozen=True, slots=True)
class Claims:
    """What goes out together, request by request; `is_all` false: there may be more that is due."""

    requests: list[list[Claimed]]
    is_all: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """What is written about one delivery after an attempt."""

    delivery: Delivery
    verdict: Verdict


class Outbox:
    """Deliveries of all tenants; `owner` names this process on its claims."""

    def __init__(self, db: Database, owner: str) -> None:
        self._db = db
        self._owner = owner

    async def due(self) -> list[tuple[str, str]]:
        """Connections that have something due."""
        return [(row["enterprise_number"], row["integration"]) for row in await self._db.fetch("select * from due_connections()")]

    async def release_expired(self) -> int:
        """Takes back what died in another process's hands."""
        return int(await self._db.fetchval("select release_expired_claims()"))

    async def claim(self, enterprise: str, integration: str, policy: Policy, kinds: Sequence[Kind], room: int, claim_s: float) -> Claims:
        """Heads of lanes that are due, popups first, by request: at most `room` of them; new deliveries of a kind that goes in batches share one, and of
        a kind that goes one request at a time those that were tried before as well."""
        batched = {kind: size for kind in kinds if (size := policy.batch.get(kind, 1)) > 1}
        alone = [str(kind) for kind in kinds if kind not in batched]
        rows = await self._db.fetch(
            "select d.*, extract(epoch from now() - d.created_at)::float8 as waited_s, memory_of_lane(d.enterprise_number, d.integration, d.lane) as memory "
            "from claim_due($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) d order by d.priority, d.due_at, d.id",
            enterprise, integration, self._owner, alone, list(batched), list(batched.values()), list(policy.repeatable), room, claim_s,
            [str(kind) for kind in policy.one_at_a_time],
        )  # fmt: skip
        requests: list[list[Claimed]] = []
        batches: dict[Kind, list[Claimed]] = {}
        for row in rows:
            claimed = Claimed(_delivery(row), row["uncertain"], row["waited_s"])
            kind = claimed.delivery.kind
            is_fresh = not claimed.is_uncertain and claimed.delivery.attempt == 1
            if kind not in batched or not (is_fresh or kind in policy.one_at_a_time):
                requests.append([claimed])
            elif kind in batches:
                batches[kind].append(claimed)
            else:
                requests.append(batches.setdefault(kind, [claimed]))
        is_full = len(requests) >= room or any(len(batch) == batched[kind] for kind, batch in batches.items())
        return Claims(requests, not is_full)

    async def settle(self, enterprise: str, integration: str, settled: Sequence[Settled], exchanges: Sequence[Exchange]) -> bool:
        """Writes results and log rows in one transaction. True when the connection has something due now."""
        results = [_result(item) for item in settled]
        logs = _logs(settled, exchanges)
        return bool(await self._db.fetchval("select settle_deliveries($1, $2, $3, $4, $5)", enterprise, integration, self._owner, results, logs))

    async def release(self, enterprise: str, call_id: str) -> set[str]:
        """Makes due what is held for a call and was not tried yet; gives the integrations that have something of it."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "update deliveries set due_at = now() where enterprise_number = $1 and call_id = $2::text::uuid and state = 'waiting' and attempts = 0 "
                "and due_at > now() returning integration",
                enterprise, call_id,
            )  # fmt: skip
        return {row["integration"] for row in rows}

    async def set_connection(self, enterprise: str, integration: str, state: str, reason: str) -> bool:
        """Notes a connection's state; True when it changed."""
        async with self._db.tenant(enterprise) as connection:
            changed = await connection.fetchval(
                "insert into connections as c (enterprise_number, integration, state, reason) values ($1, $2, $3, $4) "
                "on conflict (enterprise_number, integration) do update set state = excluded.state, reason = excluded.reason, since = now() "
                "where c.state <> excluded.state returning true",
                enterprise, integration, state, reason[:500],
            )  # fmt: skip
        return bool(changed)

    async def connection_states(self, enterprise: str) -> dict[str, dict[str, Any]]:
        """State, reason and since when, by integration."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch("select * from connections")
        return {row["integration"]: {"state": row["state"], "reason": row["reason"], "since": iso(row["since"].timestamp())} for row in rows}

    # -- for people ------------------------------------------------------------------------------------------------------

    async def page(self, enterprise: str, asked: DeliveryFilter, *, before: int | None = None, limit: int = 100) -> Sequence[dict[str, Any]]:
        """Newest first; `before` is the last id seen."""
        where, arguments = asked.conditions(enterprise)
        if before is not None:
            arguments.append(before)
            where.append(f"id < ${len(arguments)}")
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                f"select * from deliveries where {' and '.join(where)} order by id desc limit ${len(arguments) + 1}", *arguments, limit
            )
        return [shown(row) for row in rows]

    async def list(
        self, enterprise: str, *, state: str | None = None, integration: str | None = None, before: int | None = None, limit: int = 100
    ) -> Sequence[dict[str, Any]]:
        """As page, by the two filters that commands know."""
        return await self.page(enterprise, DeliveryFilter(state=state, integration=integration), before=before, limit=limit)

    async def retry(self, enterprise: str, delivery_id: int) -> dict[str, Any]:
        """Makes a waiting or dead delivery due now. Raises NotFound, or VochidError for one that is past that."""
        return await self._change(enterprise, delivery_id, RETRY)

    async def discard(self, enterprise: str, delivery_id: int) -> dict[str, Any]:
        """Gives a waiting or dead delivery up for good."""
        return await self._change(enterprise, delivery_id, DISCARD)

    async def change_many(self, enterprise: str, asked: DeliveryFilter, *, retry: bool) -> tuple[int, int, set[str]]:
        """Retries, or else discards, the waiting and dead ones among those asked for, oldest first and at most MAX_AT_ONCE.

        Gives how many were changed, how many are left to be, and the integrations to wake.
        """
        where, arguments = asked.conditions(enterprise)
        where.append("state in ('waiting', 'dead')")
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                f"with picked as (select id from deliveries where {' and '.join(where)} order by id limit {MAX_AT_ONCE} for update skip locked) "
                f"update deliveries set {RETRY if retry else DISCARD} where id in (select id from picked) returning integration",
                *arguments,
            )
            left = 0
            if len(rows) == MAX_AT_ONCE:
                done = " and due_at > now()" if retry else ""  # what was retried is still waiting, but due
                left = await connection.fetchval(f"select count(*) from deliveries where {' and '.join(where)}{done}", *arguments)
        return len(rows), left, {row["integration"] for row in rows}

    async def _change(self, enterprise: str, delivery_id: int, change: str) -> dict[str, Any]:
        async with self._db.tenant(enterprise) as connection:
            state = await connection.fetchval("select state from deliveries where id = $1 for update", delivery_id)
            if state is None:
                raise NotFound(f"there is no delivery {delivery_id}")
            if state not in OPEN_STATES:
                raise VochidError(f"delivery {delivery_id} is {state}: only {' and '.join(OPEN_STATES)} ones can be changed", code="wrong_state")
            return shown(await connection.fetchrow(f"update deliveries set {change} where id = $1 returning *", delivery_id))


async def tell_of(connection: Connection, enterprise: str, integration: str, record: Record, planned: Sequence[Planned]) -> int:
    """Stores what an integration is to be told of a record, in the caller's transaction of that tenant; gives how many were new.

    The order of a lane is the order of these calls as long as their transactions follow each other: hold the record's row (or an advisory
    lock on it) from before this call to the commit. Wake the dispatcher after the commit.
    """
    rows = [
        {
            "integration": integration, "record": str(record), "kind": str(item.kind), "key": item.key, "priority": int(item.priority),
            "payload": dict(item.payload), "expires_s": item.expires_s,
        }
        for item in planned
    ]  # fmt: skip
    return int(await connection.fetchval("select tell_of_records($1, $2)", enterprise, rows)) if rows else 0


def _delivery(row: Any) -> Delivery:
    payload = dict(row["payload"])
    about = Record.parse(row["record"]) if row["record"] is not None else Call.from_json(payload.pop("call"))
    return Delivery(row["id"], Kind(row["kind"]), about, payload, row["attempts"], row["memory"] or {})


def shown(row: Any) -> dict[str, Any]:
    """A row as people see it."""
    payload = {key: value for key, value in row["payload"].items() if key != "call"}
    return {
        "id": row["id"],
        "integration": row["integration"],
        "call": str(row["call_id"]) if row["call_id"] else None,
        "record": row["record"],
        "kind": row["kind"],
        "state": row["state"],
        "attempts": row["attempts"],
        "payload": payload,
        "created_at": iso(row["created_at"].timestamp()),
        "due_at": iso(row["due_at"].timestamp()) if row["state"] == "waiting" else None,
        "finished_at": iso(row["finished_at"].timestamp()) if row["finished_at"] else None,
        "last_error": row["last_error"],
    }


def _result(item: Settled) -> dict[str, Any]:
    v = item.verdict
    return {
        "id": item.delivery.id,
        "state": v.state,
        "error": v.error[:2_000] if v.error else None,
        "due_in_s": v.due_in_s,
        "counted": v.counted,
        "uncertain": v.uncertain,
        "memory": dict(v.memory) if v.memory else None,
    }


def _logs(settled: Sequence[Settled], exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """One row per delivery and attempt: the exchange that told the CRM, shared by a batch, and what came of it. What was said of many records at once is
    written down with the first of them, which the others name: it would be as many times as long, as there are records."""
    said = exchanges[-1] if exchanges else Exchange({}, {}, 0.0)
    first = settled[0].delivery if settled else None
    rows = []
    for item in settled:
        told = said
        if isinstance(item.delivery.about, Record) and first is not None and item.delivery is not first:
            told = Exchange({"in_batch_of_delivery": first.id}, {}, said.duration_ms)
        rows.append(_log(item, told))
    return rows


def _log(item: Settled, said: Exchange) -> dict[str, Any]:
    return {
        "event_type": str(item.delivery.kind),
        "request_data": {**said.request, "attempt": item.delivery.attempt, **item.delivery.names},
        "response_data": {**said.response, "duration_ms": said.duration_ms},
        "status": "success" if item.verdict.state in ("delivered", "observed") else "error",
        "error_message": item.verdict.error if item.verdict.state not in ("delivered", "observed") else None,
        "delivery_id": item.delivery.id,
    }
