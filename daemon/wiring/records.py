"""Own records, joined with tenants and with who looks callers up."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.errors import NotFound
from daemon.lookup.service import Lookup
from daemon.records.known import Callers
from daemon.records.service import Records
from daemon.store.crm_records import CrmRecordRepository
from daemon.store.known_customers import KnownCustomers
from daemon.store.past_calls import PastCalls
from daemon.store.pool import Database
from daemon.tenants.service import Tenants
from daemon.wiring.lookup import RECORDS


def open_records(db: Database, repository: CrmRecordRepository, tenants: Tenants, lookup: Lookup) -> tuple[Records, Callers]:
    """The records, and whom numbers belong to by them; a change is heard by both who show callers and who look them up."""
    callers = Callers(KnownCustomers(db), lookup, PastCalls(db))
    tenants.on_erased(callers.forget_names)

    def country(enterprise: str) -> str:
        tenancy = tenants.get(enterprise)
        if tenancy is None:
            raise NotFound(f"there is no enterprise {enterprise}")
        return tenancy.enterprise.country

    def changed(enterprise: str, phones: Sequence[str]) -> None:
        callers.forget(enterprise)
        lookup.forget(enterprise, RECORDS, phones)

    return Records(db, repository, country, changed), callers
