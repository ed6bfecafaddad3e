"""The state of everything for people: PBX links, CRM connections, nodes and their leases, caches, alarms."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from daemon.ami.link import LinkStatus
from daemon.delivery.desk import Desk
from daemon.delivery.dispatcher import Dispatcher
from daemon.delivery.health import Breaker, HealthView
from daemon.delivery.outbox import Outbox
from daemon.lookup.service import Lookup
from daemon.model.call import iso
from daemon.store.leases import Leases, node_of
from daemon.store.pool import Database
from daemon.telemetry.alarms import alarms
from daemon.tenants.cache import REFRESH_S
from daemon.tenants.service import Tenancy, Tenants
from daemon.wiring.crm import Crm
from daemon.wiring.elsewhere import Everywhere
from daemon.wiring.nodes import Nodes

_UNKNOWN = HealthView(Breaker.CLOSED, 0, 0, 0.0)


class Overview:
    """Reads, and changes nothing. What another daemon's process knows alone (its breakers) is shown as not ours."""

    def __init__(
        self, db: Database, tenants: Tenants, outbox: Outbox, dispatcher: Dispatcher, crm: Crm, nodes: Nodes, leases: Leases, lookup: Lookup,
        everywhere: Everywhere,
    ) -> None:  # fmt: skip
        self._db = db
        self._tenants = tenants
        self._outbox = outbox
        self._desk = Desk(db)
        self._dispatcher = dispatcher
        self._crm = crm
        self._nodes = nodes
        self._own = leases
        self._lookup = lookup
        self._everywhere = everywhere

    async def connections(self, enterprise: str) -> list[dict[str, Any]]:
        """One enterprise's CRM connections: state, breaker, and the use of the account's limits."""
        tenancy = self._tenants.get(enterprise)
        if tenancy is None:
            return []
        states, health = await self._outbox.connection_states(enterprise), self._dispatcher.health(enterprise)
        found = []
        for name, settings in tenancy.integrations.items():
            account, rates = self._crm.rates(enterprise, name)
            share = round(self._crm.budgets.share(account), 3)
            state = states.get(name, {"state": "ok", "reason": "", "since": None})
            found.append(
                {"integration": name, "enabled": settings.enabled, "mode": settings.mode, "account": account, **state,
                 **asdict(health.get(name, _UNKNOWN)), "rates": rates, "share": share}
            )  # fmt: skip
        return found

    async def state(self, enterprise: str | None) -> dict[str, Any]:
        """Everything of one enterprise; of the whole daemon's nodes when it is None."""
        tenants = self._tenants.all() if enterprise is None else {n: t for n in [enterprise] if (t := self._tenants.get(n)) is not None}
        leases = await self._leases(enterprise)
        links = self._nodes.links(enterprise)
        pbxs = [row for number, tenancy in tenants.items() for row in self._pbxs_of(number, tenancy, leases, links)]
        body: dict[str, Any] = {"at": iso(time.time()), "node": node_of(self._own.owner), "pbxs": pbxs, "caches": self._caches(enterprise)}
        if enterprise is None:
            return {**body, "nodes": self.nodes()}
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

    def nodes(self) -> list[dict[str, Any]]:
        """The daemons that live, as of this one's last beat."""
        return [
            {"node": node.name, "process": node.owner, "pbxs": node.pbxs, "since": iso(node.started_at), "is_this": node.owner == self._own.owner}
            for node in self._own.nodes
        ]

    def _pbxs_of(
        self, number: str, tenancy: Tenancy, leases: dict[tuple[str, str], dict[str, Any]], links: Mapping[tuple[str, str], LinkStatus]
    ) -> list[dict[str, Any]]:
        """`state` is None when nobody reads this PBX; `is_here`: this node does."""
        rows = []
        for pbx in tenancy.enterprise.pbxs:
            status, lease = links.get((number, pbx.name)), leases.get((number, pbx.name))
            rows.append(
                {
                    "enterprise": number, "pbx": pbx.name, "host": f"{pbx.host}:{pbx.port}", "reads": pbx.secret is not None and not tenancy.enterprise.paused,
                    "state": str(status.state) if status else None, "reason": status.reason if status else "",
                    "since": iso(status.since) if status and status.since else None, "version": (status.version or None) if status else None,
                    "is_here": lease is not None and lease["owner"] == self._own.owner,
                    "owner": node_of(lease["owner"]) if lease else None, "epoch": lease["epoch"] if lease else None,
                }
            )  # fmt: skip
        return rows

    async def refresh(self, enterprise: str) -> None:
        """Reads one enterprise's settings anew, here and on the other daemons, and forgets what CRMs said of its callers."""
        await self._tenants.refresh(enterprise, others_too=True)
        self._everywhere.forget(enterprise, None, None)

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
