"""The state of everything for people: PBX links, CRM connections, nodes and their leases, caches, alarms."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from daemon.delivery.desk import Desk
from daemon.delivery.dispatcher import Dispatcher
from daemon.delivery.health import Breaker, HealthView
from daemon.delivery.outbox import Outbox
from daemon.lookup.service import Lookup
from daemon.model.call import iso
from daemon.store.pool import Database
from daemon.telemetry.alarms import alarms
from daemon.tenants.cache import REFRESH_S
from daemon.tenants.service import Tenancy, Tenants
from daemon.wiring.crm import Crm
from daemon.wiring.pbxs import Pbxs

_UNKNOWN = HealthView(Breaker.CLOSED, 0, 0, 0.0)


class Overview:
    """Reads, and changes nothing. What another daemon's process knows alone (its links, its breakers) is shown as not ours."""

    def __init__(self, db: Database, tenants: Tenants, outbox: Outbox, dispatcher: Dispatcher, crm: Crm, pbxs: Pbxs, lookup: Lookup, owner: str) -> None:
        self._db = db
        self._tenants = tenants
        self._outbox = outbox
        self._desk = Desk(db)
        self._dispatcher = dispatcher
        self._crm = crm
        self._pbxs = pbxs
        self._lookup = lookup
        self._owner = owner

    async def connections(self, enterprise: str) -> list[dict[str, Any]]:
        """One enterprise's CRM connections: state, breaker, and the use of the account's limits."""
        tenancy = self._tenants.get(enterprise)
        if tenancy is None:
            return []
        states, health = await self._outbox.connection_states(enterprise), self._dispatcher.health(enterprise)
        found = []
        for name, settings in tenancy.integrations.items():
            account, rates = self._crm.rates(enterprise, name)
            state = states.get(name, {"state": "ok", "reason": "", "since": None})
            found.append(
                {"integration": name, "enabled": settings.enabled, "mode": settings.mode, "account": account, **state,
                 **asdict(health.get(name, _UNKNOWN)), "rates": rates}
            )  # fmt: skip
        return found

    async def state(self, enterprise: str | None) -> dict[str, Any]:
        """Everything of one enterprise; of the whole daemon's nodes when it is None."""
        tenants = self._tenants.all() if enterprise is None else {n: t for n in [enterprise] if (t := self._tenants.get(n)) is not None}
        leases = await self._leases(enterprise)
        pbxs = [row for number, tenancy in tenants.items() for row in self._pbxs_of(number, tenancy, leases)]
        body: dict[str, Any] = {"at": iso(time.time()), "node": self._owner.rpartition("-")[0], "pbxs": pbxs, "caches": self._caches(enterprise)}
        if enterprise is None:
            return {**body, "nodes": _nodes(leases)}
        connections, backlog = await self.connections(enterprise), await self._desk.summary(enterprise)
        problems = [problem for tenancy in tenants.values() for problem in tenancy.problems]
        found = alarms(pbxs, connections, backlog, problems)
        return {**body, "connections": connections, "deliveries": backlog, "problems": problems, "alarms": [asdict(alarm) for alarm in found]}

    async def _leases(self, enterprise: str | None) -> dict[tuple[str, str], dict[str, Any]]:
        if enterprise is None:
            rows = await self._db.fetch("select * from all_leases()")
        else:
            async with self._db.tenant(enterprise) as connection:
                rows = await connection.fetch("select * from leases where enterprise_number = $1", enterprise)
        return {(row["enterprise_number"], row["pbx"]): dict(row) for row in rows if _is_alive(row["expires_at"])}

    def _pbxs_of(self, number: str, tenancy: Tenancy, leases: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
        """`state` is None when another node reads this PBX, or nobody does."""
        rows = []
        for pbx in tenancy.enterprise.pbxs:
            link, lease = self._pbxs.fleet.links.get((number, pbx.name)), leases.get((number, pbx.name))
            status = link.status if link is not None else None
            rows.append(
                {
                    "enterprise": number, "pbx": pbx.name, "host": f"{pbx.host}:{pbx.port}", "reads": pbx.secret is not None and not tenancy.enterprise.paused,
                    "state": str(status.state) if status else None, "reason": status.reason if status else "",
                    "since": iso(status.since) if status else None, "version": status.version if status else None,
                    "owner": lease["owner"].rpartition("-")[0] if lease else None, "epoch": lease["epoch"] if lease else None,
                }
            )  # fmt: skip
        return rows

    async def refresh(self, enterprise: str) -> None:
        """Reads one enterprise's settings anew, here and on the other daemons, and forgets what CRMs said of its callers."""
        await self._tenants.refresh(enterprise, others_too=True)
        self._lookup.settings_changed({enterprise})

    def _caches(self, enterprise: str | None) -> list[dict[str, Any]]:
        """Name, entries, hits and misses since the start, seconds since it was filled, and how often it is."""
        entries, hits, misses = self._lookup.cache_counts(enterprise)
        found, unknown = self._tenants.read_counts(enterprise)
        settings = {"name": "settings", "entries": len(self._tenants.all()) if enterprise is None else 1, "hits": found, "misses": unknown}
        return [
            {**settings, "age_s": self._tenants.age_s, "refresh_s": REFRESH_S},
            {"name": "managers", "entries": entries, "hits": hits, "misses": misses, "age_s": None, "refresh_s": None},
        ]


def _is_alive(expires_at: Any) -> bool:
    """'-infinity' marks a lease that was given back."""
    return isinstance(expires_at, datetime) and expires_at.year > 1 and expires_at > datetime.now(UTC)


def _nodes(leases: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    nodes: dict[str, int] = {}
    for lease in leases.values():
        nodes[lease["owner"]] = nodes.get(lease["owner"], 0) + 1
    return [{"node": owner.rpartition("-")[0], "process": owner, "pbxs": count} for owner, count in sorted(nodes.items())]
