"""The outbox in PostgreSQL: claim, settle, and what people see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daemon.delivery.verdict import Verdict
from daemon.errors import NotFound, VochidError
from daemon.model.call import Call, iso
from daemon.model.delivery import Delivery, Exchange, Kind
from daemon.store.pool import Database

OPEN_STATES = ("waiting", "dead")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery in our hands, and what its former attempts left unclear."""

    delivery: Delivery
    is_uncertain: bool
    waited_s: float


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

    async def claim(
        self, enterprise: str, integration: str, kinds: Sequence[Kind], limit: int, claim_s: float, *, repeatable: bool = False, fresh: bool | None = None
    ) -> list[Claimed]:
        """Heads of lanes that are due, popups first. repeatable: all these kinds may be sent again without harm.
        fresh: only what was never tried, or only what was."""
        rows = await self._db.fetch(
            "select d.*, extract(epoch from now() - d.created_at)::float8 as waited_s, m.memory "
            "from claim_deliveries($1, $2, $3, $4, $5, $6, $7, $8) d "
            "left join lane_memory m using (enterprise_number, integration, call_id) order by d.priority, d.due_at, d.id",
            enterprise, integration, self._owner, [str(kind) for kind in kinds], limit, claim_s, repeatable, fresh,
        )  # fmt: skip
        return [Claimed(_delivery(row), row["uncertain"], row["waited_s"]) for row in rows]

    async def settle(self, enterprise: str, integration: str, settled: Sequence[Settled], exchanges: Sequence[Exchange]) -> None:
        """Writes results and log rows in one transaction."""
        results = [_result(item) for item in settled]
        logs = _logs(settled, exchanges)
        await self._db.fetch("select settle_deliveries($1, $2, $3, $4, $5)", enterprise, integration, self._owner, results, logs)

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

    async def list(
        self, enterprise: str, *, state: str | None = None, integration: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Newest first; `before` is the last id seen."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select * from deliveries where enterprise_number = $1 and ($2::text is null or state = $2) "
                "and ($3::text is null or integration = $3) and ($4::bigint is null or id < $4) order by id desc limit $5",
                enterprise, state, integration, before, limit,
            )  # fmt: skip
        return [_shown(row) for row in rows]

    async def retry(self, enterprise: str, delivery_id: int) -> dict[str, Any]:
        """Makes a waiting or dead delivery due now. Raises NotFound, or VochidError for one that is past that."""
        return await self._change(
            enterprise, delivery_id, OPEN_STATES,
            "update deliveries set state = 'waiting', due_at = now(), expires_at = null, finished_at = null, "
            "attempts = case state when 'dead' then 0 else attempts end where id = $1 returning *",
        )  # fmt: skip

    async def discard(self, enterprise: str, delivery_id: int) -> dict[str, Any]:
        """Gives a waiting or dead delivery up for good."""
        return await self._change(
            enterprise, delivery_id, OPEN_STATES,
            "update deliveries set state = 'discarded', finished_at = now() where id = $1 returning *",
        )  # fmt: skip

    async def _change(self, enterprise: str, delivery_id: int, allowed: tuple[str, ...], statement: str) -> dict[str, Any]:
        async with self._db.tenant(enterprise) as connection:
            state = await connection.fetchval("select state from deliveries where id = $1 for update", delivery_id)
            if state is None:
                raise NotFound(f"there is no delivery {delivery_id}")
            if state not in allowed:
                raise VochidError(f"delivery {delivery_id} is {state}: only {' and '.join(allowed)} ones can be changed", code="wrong_state")
            return _shown(await connection.fetchrow(statement, delivery_id))


def _delivery(row: Any) -> Delivery:
    payload = dict(row["payload"])
    call = Call.from_json(payload.pop("call"))
    return Delivery(row["id"], Kind(row["kind"]), call, payload, row["attempts"], row["memory"] or {})


def _shown(row: Any) -> dict[str, Any]:
    payload = {key: value for key, value in row["payload"].items() if key != "call"}
    return {
        "id": row["id"],
        "integration": row["integration"],
        "call": str(row["call_id"]),
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
        "call_id": item.delivery.call.id,
        "state": v.state,
        "error": v.error[:2_000] if v.error else None,
        "due_in_s": v.due_in_s,
        "counted": v.counted,
        "uncertain": v.uncertain,
        "memory": dict(v.memory) if v.memory else None,
    }


def _logs(settled: Sequence[Settled], exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """One row per delivery and attempt: the exchange that told the CRM, shared by a batch, and what came of it."""
    said = exchanges[-1] if exchanges else Exchange({}, {}, 0.0)
    return [
        {
            "event_type": str(item.delivery.kind),
            "request_data": {**said.request, "attempt": item.delivery.attempt, "call": item.delivery.call.id},
            "response_data": {**said.response, "duration_ms": said.duration_ms},
            "status": "success" if item.verdict.state in ("delivered", "observed") else "error",
            "error_message": item.verdict.error if item.verdict.state not in ("delivered", "observed") else None,
            "delivery_id": item.delivery.id,
        }
        for item in settled
    ]
