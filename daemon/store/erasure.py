"""All that is stored about one phone number, taken out of every table of a tenant: `vochid erase`.

ERASED and SPARED together name every table: a test compares them with the database, so that a new table must say where it belongs.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

import asyncpg

from daemon.errors import VochidError
from daemon.model.crm_record import DATES, FIELDS, REFERENCES, RecordType
from daemon.model.phone_forms import PhoneForms
from daemon.store.crm_records import CrmRecordRepository
from daemon.store.pool import Connection, Database

DEADLINE_S = 900.0  # of one statement: the log of 90 days is read whole
LOCK_S = 0.5  # shorter than PostgreSQL's search for deadlocks: calls and deliveries at work never give way to an erasure
TRIES = 20
SETTLED_S = 60  # a call that ended later may still change
TRACES_AT_ONCE = 200
GONE = {"erased": True}

# Where a customer's number, name, voice or words may lie. Of a customer's own calls, deliveries and logs everything goes; elsewhere the number alone.
ERASED: dict[str, str] = {
    "calls": "number, name and recordings of their own calls; the number where it took part in others. The calls stay, and count",
    "legs": "number, and channel names with it in",
    "call_words": "follows calls by trigger",
    "ticket_words": "follows tickets by trigger",
    "call_traces": "traces of those calls, and any other that has the number in it",
    "missed_calls": "their rows",
    "deliveries": "bodies; what waits is discarded",
    "lane_memory": "what CRMs answered about those calls",
    "integration_logs": "bodies; the line itself stays, with what it was and how it ended",
    "originate_requests": "number, reason and key",
    "amocrm_orders": "orders with the number",
    "support_tickets": "their tickets whole; the number in others",
    "support_messages": "go with their ticket; the number in others",
    "support_attachments": "go with their ticket; the number in others' names",
    "report_calls": "the number where it stands for who answered",
    "connections": "the number in a CRM's reason",
    "crm_users": "users with the number whole; the number in others' texts",
    "crm_companies": "the number; it in texts",
    "crm_contracts": "the number in texts",
    "crm_objects": "the number in texts",
    "bitrix24_sync_mappings": "what was agreed on about a user; the number in others",
    "integration_errors": "those of such records; the number in other messages",
}
SPARED: dict[str, str] = {
    "enterprises": "the enterprise's own settings: told, for people to change",
    "user_internal_phones": "extensions of the enterprise's own",
    "leases": "no person", "pbx_states": "no person", "posted_events": "a PBX's ids", "api_tokens": "hashes", "inbound_tokens": "hashes",
    "amocrm_tokens": "sealed credentials", "consent_states": "hashes", "integration_state": "the CRM's users, who are staff",
    "user_statuses": "the CRM's users, who are staff", "users": "staff", "sessions": "staff", "setup_links": "hashes",
    "audit": "what staff did; it holds no customer's number", "alerts": "names of PBXs and integrations",
    "report_days": "sums", "report_callbacks": "sums", "report_told": "sums", "support_legacy": "addresses of programs",
    "schema_migrations": "no person",
    "sync_jobs": "ids and times", "nodes": "no person", "budget_shares": "no person", "asks": "gone after a minute",
}  # fmt: skip

_HAS = "translate({0}, ' ().-' || chr(9) || chr(10), '') like '%' || $2 || '%' and {0} ~ $3"


@dataclass(slots=True)
class Report:
    """`counts`: rows by what they were. `recordings`: (PBX, the PBX's name of the file). `still_live`: calls left because they are not over;
    `in_settings`: where the enterprise's own settings have the number."""

    counts: dict[str, int] = field(default_factory=dict)
    recordings: list[tuple[str, str]] = field(default_factory=list)
    still_live: int = 0
    in_settings: bool = False


class _Undone(Exception):
    """Ends a dry run's transaction."""


class ErasureRepository:
    """Finds and takes out, in one transaction. A dry run does all of it and rolls back, so that it cannot tell anything else."""

    def __init__(self, db: Database, records: CrmRecordRepository) -> None:
        self._db = db
        self._records = records

    async def erase(self, enterprise: str, forms: PhoneForms, *, dry_run: bool) -> Report:
        """What was found (and, unless it is a dry run, is gone). Raises VochidError when rows stay locked by others."""
        for _ in range(TRIES):
            report = Report()
            try:
                async with self._db.tenant(enterprise) as connection:
                    await connection.execute(f"set local lock_timeout = {int(LOCK_S * 1000)}; set local statement_timeout = 0; set local work_mem = '32MB'")
                    await _Erasing(connection, self._records, enterprise, forms, report).run()
                    if dry_run:
                        raise _Undone
            except _Undone:
                return report
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                continue
            return report
        raise VochidError("calls of this number are being changed all the time: nothing was erased, try again", code="busy")


@dataclass(slots=True)
class _Erasing:
    connection: Connection
    records: CrmRecordRepository
    enterprise: str
    forms: PhoneForms
    report: Report

    async def run(self) -> None:
        own, others = await self._calls()
        await self._traces([*own, *others])
        await self._tickets()
        await self._records()
        await self._told(own)
        await self._rest()
        self.report.in_settings = bool(
            await self._value(
                f"select exists (select from enterprises where number = $1 and {_HAS.format('settings::text')})",
                self.forms.core,
                self.forms.pattern,
            )
        )

    async def _calls(self) -> tuple[list[object], list[object]]:
        """The customer's own calls, and others in which the number took part; both are anonymous afterwards."""
        rows = await self.connection.fetch(
            """with named as (select call_id from legs where enterprise_number = $1 and number = any ($2))
               select id, pbx, recordings, customer_number = any ($2) is true as own, ended_at is null or ended_at > now() - make_interval(secs => $5) as live
               from calls c where enterprise_number = $1 and (customer_number = any ($2) or answered_by = any ($2) or last_talked = any ($2)
                 or initiator = any ($2) or rang && $2 or id in (select call_id from named)
                 or (transfers <> '[]' and transfers::text like '%' || $3 || '%' and transfers::text ~ $4))""",
            self.enterprise, list(self.forms.written), self.forms.core, self.forms.pattern, SETTLED_S, timeout=DEADLINE_S,
        )  # fmt: skip
        self.report.still_live = sum(row["live"] for row in rows)
        over = [row for row in rows if not row["live"]]
        own, others = [row["id"] for row in over if row["own"]], [row["id"] for row in over if not row["own"]]
        self.report.recordings = [(row["pbx"], name) for row in over for name in row["recordings"]]
        written, pattern = list(self.forms.written), self.forms.pattern
        # Not a gap any more: CDR would fill it in, number and all.
        self.report.counts["calls"] = await self._change(
            """update calls c set customer_number = case when customer_number = any ($3) then null else customer_number end,
                 customer_name = case when customer_number = any ($3) then null else customer_name end, recordings = '{}', gap = false, erased_at = now(),
                 answered_by = case when answered_by = any ($3) then null else answered_by end,
                 last_talked = case when last_talked = any ($3) then null else last_talked end,
                 initiator = case when initiator = any ($3) then null else initiator end,
                 rang = array(select one from unnest(rang) with ordinality as r (one, at) where not one = any ($3) order by at),
                 transfers = regexp_replace(transfers::text, $4, '0', 'g')::jsonb, updated_at = now()
               where enterprise_number = $1 and id = any ($2)""",
            [*own, *others], written, pattern,
        )  # fmt: skip
        self.report.counts["legs"] = await self._change(
            """update legs set number = case when number = any ($4) or (kind = 'customer' and call_id = any ($3)) then null else number end,
                 channel = regexp_replace(channel, $5, '0', 'g')
               where enterprise_number = $1 and call_id = any ($2)""",
            [*own, *others], own, written, pattern,
        )  # fmt: skip
        self.report.counts["missed"] = await self._change(
            """delete from missed_calls m using calls c where m.enterprise_number = $1 and m.customer_number = any ($2)
                 and c.enterprise_number = $1 and c.id = m.call_id and c.erased_at is not null""",
            written,
        )
        await self._change("update missed_calls set closed_by = null where enterprise_number = $1 and closed_by = any ($2)", written)
        return own, others

    async def _traces(self, calls: list[object]) -> None:
        """Compressed, so each is opened and looked into."""
        gone = await self._change("delete from call_traces where enterprise_number = $1 and call_id = any ($2)", calls)
        wanted = re.compile(self.forms.pattern.encode())
        found = []
        async for row in self.connection.cursor("select call_id, raw, changes from call_traces where enterprise_number = $1", self.enterprise,
                                                prefetch=TRACES_AT_ONCE, timeout=DEADLINE_S):  # fmt: skip
            if any(wanted.search(zlib.decompress(row[part])) for part in ("raw", "changes")):
                found.append(row["call_id"])
        live = "select id from calls where enterprise_number = $1 and (ended_at is null or ended_at > now() - make_interval(secs => $3))"
        gone += await self._change(f"delete from call_traces where enterprise_number = $1 and call_id = any ($2) and call_id not in ({live})", found, SETTLED_S)
        self.report.counts["traces"] = gone

    async def _told(self, own: list[object]) -> None:
        """Deliveries, what CRMs answered, and the log of both. What waits is never sent: there is nobody left to tell of."""
        bodies = await self.connection.fetch(
            f"""select id from deliveries d where enterprise_number = $1 and (call_id = any ($4)
                  or (call_id is null and integration <> 'tickets' and payload <> $5 and {_HAS.format("d.payload::text")}))""",
            self.enterprise, self.forms.core, self.forms.pattern, own, GONE, timeout=DEADLINE_S,
        )  # fmt: skip
        ids = [row["id"] for row in bodies]
        self.report.counts["lane memories"] = await self._change(
            """delete from lane_memory m using deliveries d where m.enterprise_number = $1 and d.enterprise_number = $1 and d.id = any ($2)
                 and m.integration = d.integration and m.lane = d.lane""",
            ids,
        )
        self.report.counts["deliveries"] = await self._change(
            """update deliveries set payload = $3, last_error = case when last_error is null then null else 'erased' end,
                 state = case when state in ('waiting', 'sending', 'dead') then 'discarded' else state end,
                 claimed_by = null, claimed_until = null, finished_at = coalesce(finished_at, now())
               where enterprise_number = $1 and id = any ($2)""",
            ids, GONE,
        )  # fmt: skip
        self.report.counts["deliveries of others"] = await self._change(
            f"""update deliveries d set payload = regexp_replace(payload::text, $3, '0', 'g')::jsonb, last_error = regexp_replace(last_error, $3, '0', 'g')
                where enterprise_number = $1 and state <> 'sending' and ({_HAS.format('payload::text')} or {_HAS.format("coalesce(last_error, '')")})""",
            self.forms.core, self.forms.pattern,
        )  # fmt: skip
        await self._change(
            f"update lane_memory set memory = regexp_replace(memory::text, $3, '0', 'g')::jsonb where enterprise_number = $1 and {_HAS.format('memory::text')}",
            self.forms.core,
            self.forms.pattern,
        )
        text = "(request_data::text || ' ' || response_data::text || ' ' || coalesce(error_message, ''))"
        self.report.counts["log lines"] = await self._change(
            f"""update integration_logs set request_data = $5, response_data = $5, error_message = case when error_message is null then null else 'erased' end
                where enterprise_number = $1 and (delivery_id = any ($4) or ({_HAS.format(text)}))""",
            self.forms.core, self.forms.pattern, ids, GONE,
        )  # fmt: skip

    async def _tickets(self) -> None:
        tickets = [
            row["id"]
            for row in await self.connection.fetch(
                "select id from support_tickets where enterprise_number = $1 and customer_phone = any ($2)", self.enterprise, list(self.forms.written)
            )
        ]
        lanes = [f"ticket/{one}" for one in tickets]
        await self._change(
            """update integration_logs l set request_data = $3, response_data = $3, error_message = case when error_message is null then null else 'erased' end
               from deliveries d where l.enterprise_number = $1 and d.enterprise_number = $1 and d.record = any ($2) and l.delivery_id = d.id""",
            lanes, GONE,
        )  # fmt: skip
        await self._change("delete from lane_memory m using deliveries d where m.enterprise_number = $1 and d.enterprise_number = $1 "
                           "and d.record = any ($2) and m.lane = d.lane and m.integration = d.integration", lanes)  # fmt: skip
        await self._change("delete from deliveries where enterprise_number = $1 and record = any ($2)", lanes)
        self.report.counts["tickets"] = await self._change("delete from support_tickets where enterprise_number = $1 and id = any ($2)", tickets)
        mentions = 0
        for table, columns in {
            "support_tickets": ("subject", "external_url"), "support_messages": ("body", "author"), "support_attachments": ("name", "source_url"),
        }.items():  # fmt: skip
            mentions += await self._scrub(table, *columns)
        mentions += await self._change(
            "update support_messages set attachments = regexp_replace(attachments::text, $3, '0', 'g')::jsonb "
            f"where enterprise_number = $1 and {_HAS.format('attachments::text')}",
            self.forms.core, self.forms.pattern,
        )  # fmt: skip
        self.report.counts["mentions in other tickets"] = mentions

    async def _records(self) -> None:
        erased = await self.records.erase_phone(self.connection, self.enterprise, self.forms.written)
        self.report.counts["records"] = len(erased)
        mentions = 0
        for kind in RecordType:
            texts = [name for name in FIELDS[kind] if name not in DATES and name not in REFERENCES]
            mentions += await self._scrub(kind.table, *texts)
            await self._change(
                f"update {kind.table} set idempotency_key = null where enterprise_number = $1 and {_HAS.format('idempotency_key')}",
                self.forms.core, self.forms.pattern,
            )  # fmt: skip
        self.report.counts["mentions in other records"] = mentions
        await self._scrub("integration_errors", "message")
        for column in ("agreed", "shown", "conflicts", "tasks"):
            await self._change(
                f"update bitrix24_sync_mappings set {column} = regexp_replace({column}::text, $3, '0', 'g')::jsonb "
                f"where tenant_id = $1 and {_HAS.format(f'{column}::text')}",
                self.forms.core, self.forms.pattern,
            )  # fmt: skip

    async def _rest(self) -> None:
        self.report.counts["clicks"] = await self._change(
            """update originate_requests set phone = '', reason = case when reason is null then null else 'erased' end, idempotency_key = null
               where enterprise_number = $1 and phone = any ($2) and created_at < now() - make_interval(secs => $3)""",
            list(self.forms.written), SETTLED_S,
        )  # fmt: skip
        self.report.counts["orders"] = await self._change(
            f"update amocrm_orders set sent = $4 where enterprise_number = $1 and {_HAS.format('sent::text')}", self.forms.core, self.forms.pattern, GONE
        )
        await self._scrub("connections", "reason")
        await self._change(
            "update report_calls set extensions = array(select case when one = any ($2) then '' else one end from unnest(extensions) with ordinality "
            "as e (one, at) order by at) where enterprise_number = $1 and extensions && $2",
            list(self.forms.written),
        )

    async def _scrub(self, table: str, *columns: str) -> int:
        """The number alone goes, in texts of others."""
        return sum(
            [
                await self._change(
                    f"update {table} set {column} = regexp_replace({column}, $3, '0', 'g') where enterprise_number = $1 and {_HAS.format(column)}",
                    self.forms.core,
                    self.forms.pattern,
                )
                for column in columns
            ]
        )

    async def _change(self, statement: str, *arguments: object) -> int:
        """Runs a statement whose first argument is the enterprise; gives how many rows it changed."""
        return int((await self.connection.execute(statement, self.enterprise, *arguments, timeout=DEADLINE_S)).rpartition(" ")[2])

    async def _value(self, statement: str, *arguments: object) -> object:
        return await self.connection.fetchval(statement, self.enterprise, *arguments, timeout=DEADLINE_S)
