"""Tickets and messages of one tenant. Whoever adds to a ticket holds its row: what is told of it is then in the order of its sequence."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from daemon.errors import NotFound, VochidError
from daemon.model.call import iso
from daemon.model.ticket import Attachment, Side, TicketStatus
from daemon.store.calls import decode_cursor, encode_cursor
from daemon.store.pool import Connection, Database
from daemon.store.ticket_query import UNCLOSED, TicketFilter, ticket_conditions

MAX_MESSAGES = 2_000  # of a conversation at once, the newest
Row = dict[str, Any]


class TicketRepository:
    """Reads tickets, and writes them inside the caller's transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # -- reading -----------------------------------------------------------------------------------------------------------

    async def page(self, enterprise: str, asked: TicketFilter, *, cursor: str | None = None, limit: int = 100) -> tuple[list[Row], str | None]:
        """Tickets, the one that changed last first, each with how many messages it has, and the cursor of the next page."""
        async with self._db.tenant(enterprise) as connection:
            words = [row["word"] for row in await connection.fetch("select word from words_of($1) as word", asked.search)] if asked.search else []
            where, arguments = ticket_conditions(enterprise, asked, words)
            if cursor is not None:
                at, key = _place(cursor)
                arguments += [at, key]
                where.append(f"(t.updated_at, t.id) < (${len(arguments) - 1}, ${len(arguments)})")
            rows = await connection.fetch(
                "select t.*, (select count(*) from support_messages m where m.enterprise_number = t.enterprise_number and m.ticket_id = t.id) as messages "
                f"from support_tickets t where {' and '.join(where)} order by t.updated_at desc, t.id desc limit {int(limit) + 1}",
                *arguments,
            )
        following = encode_cursor(rows[limit - 1]["updated_at"], str(uuid.UUID(int=rows[limit - 1]["id"]))) if len(rows) > limit else None
        return [{**ticket_json(row), "messages": row["messages"]} for row in rows[:limit]], following

    async def get(self, enterprise: str, ticket_id: int) -> Row:
        """One ticket with its conversation; each message with what became of its delivery and of its attachments. Raises NotFound."""
        async with self._db.tenant(enterprise) as connection:
            ticket = await connection.fetchrow("select * from support_tickets where enterprise_number = $1 and id = $2", enterprise, ticket_id)
            if ticket is None:
                raise NotFound(f"there is no ticket {ticket_id}")
            rows = await connection.fetch(
                "select * from (select * from support_messages where enterprise_number = $1 and ticket_id = $2 "
                f"order by sequence desc, sender desc, id desc limit {MAX_MESSAGES}) m order by sequence, sender, id",
                enterprise, ticket_id,
            )  # fmt: skip
            told = await connection.fetch(
                "select id, kind, key, state, attempts, last_error from deliveries where enterprise_number = $1 and record = $2 and integration = 'tickets'",
                enterprise, f"ticket/{ticket_id}",
            )  # fmt: skip
            copies = await connection.fetch(
                "select message_id, position, id, state, size, error from support_attachments where enterprise_number = $1 and message_id = any ($2::bigint[])",
                enterprise, [row["id"] for row in rows],
            )  # fmt: skip
        deliveries = {row["key"]: {key: row[key] for key in ("id", "kind", "state", "attempts", "last_error")} for row in told}
        copied = {(row["message_id"], row["position"]): row for row in copies}
        shown = ticket_json(ticket)
        messages = []
        for row in rows:
            message = message_json(row, shown["external_ticket_id"])
            message["delivery"] = deliveries.get(message_key(ticket_id, row["id"]))
            message["attachments"] = [_with_copy(item, copied.get((row["id"], n))) for n, item in enumerate(message["attachments"])]
            messages.append(message)
        status = deliveries.get(status_key(ticket_id, ticket["status_sequence"]))
        return {**shown, "messages": messages, "status_delivery": status}

    async def open_of(self, enterprise: str, phone: str) -> list[Row]:
        """A customer's tickets that are not closed, the one that changed last first."""
        return (await self.page(enterprise, TicketFilter(status=UNCLOSED, phone=phone), limit=10))[0]

    async def agent_of(self, enterprise: str, phone: str) -> tuple[str | None, bool]:
        """The extension that looks after this customer's open ticket, and whether there is such a ticket at all."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select agent from support_tickets where enterprise_number = $1 and customer_phone = $2 and status <> 'closed' "
                "order by agent is null, updated_at desc limit 1",
                enterprise, phone,
            )  # fmt: skip
        return (rows[0]["agent"], True) if rows else (None, False)

    async def legacy_callers(self, enterprise: str) -> list[Row]:
        """Who came by legacy paths, the latest first."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch("select * from support_legacy where enterprise_number = $1 order by last_at desc limit 100", enterprise)
        return [{**{k: row[k] for k in ("path", "caller", "count")}, "first_at": _at(row["first_at"]), "last_at": _at(row["last_at"])} for row in rows]

    async def count_legacy(self, enterprise: str, path: str, caller: str, most: int = 1_000) -> None:
        """One more request by a legacy path; at most `most` callers of an enterprise are told apart."""
        async with self._db.tenant(enterprise) as connection:
            known = await connection.fetchval(
                "update support_legacy set count = count + 1, last_at = now() where enterprise_number = $1 and path = $2 and caller = $3 returning true",
                enterprise, path, caller,
            )  # fmt: skip
            if not known:
                many = await connection.fetchval("select count(*) >= $2 from support_legacy where enterprise_number = $1", enterprise, most)
                await connection.execute(
                    "insert into support_legacy as l (enterprise_number, path, caller) values ($1, $2, $3) "
                    "on conflict (enterprise_number, path, caller) do update set count = l.count + 1, last_at = now()",
                    enterprise, path, "others" if many else caller,
                )  # fmt: skip

    # -- writing, in the caller's transaction of that tenant ----------------------------------------------------------------

    @staticmethod
    async def lock(connection: Connection, enterprise: str, *, ticket_id: int | None = None, external_id: str | None = None) -> Any:
        """The ticket's row, held until the transaction ends. Raises NotFound (unknown_ticket)."""
        column, value = ("id", ticket_id) if ticket_id is not None else ("external_id", uuid.UUID(external_id))
        row = await connection.fetchrow(f"select * from support_tickets where enterprise_number = $1 and {column} = $2 for update", enterprise, value)
        if row is None:
            raise NotFound(f"there is no ticket {value}", code="unknown_ticket", field="external_ticket_id" if external_id else None)
        return row

    @staticmethod
    async def open_for(connection: Connection, enterprise: str, phone: str) -> Any | None:
        """The customer's newest unclosed ticket, held; None without one. Nobody else opens one for them until the transaction ends."""
        await connection.execute("select pg_advisory_xact_lock(hashtextextended('ticket ' || $1 || ' ' || $2, 0))", enterprise, phone)
        return await connection.fetchrow(
            "select * from support_tickets where enterprise_number = $1 and customer_phone = $2 and status <> 'closed' "
            "order by updated_at desc, id desc limit 1 for update",
            enterprise, phone,
        )  # fmt: skip

    @staticmethod
    async def insert(connection: Connection, enterprise: str, ticket: Row) -> Any | None:
        """A new ticket's row; None when its external_id or idempotency_key is there already."""
        return await connection.fetchrow(
            "insert into support_tickets (enterprise_number, external_id, subject, project, external_url, customer_phone, agent, shared, status_by, "
            "idempotency_key) values ($1, $2::text::uuid, $3, $4, $5, $6, $7, $8, $9, $10) on conflict do nothing returning *",
            enterprise, ticket["external_id"], ticket["subject"], ticket["project"], ticket.get("external_url"), ticket.get("customer_phone"),
            ticket.get("agent"), ticket["shared"], ticket["status_by"], ticket.get("idempotency_key"),
        )  # fmt: skip

    @staticmethod
    async def known(connection: Connection, enterprise: str, column: str, value: Any) -> Any:
        """The ticket with this external_id or idempotency_key, which is there."""
        assert column in ("external_id", "idempotency_key")
        cast = "::text::uuid" if column == "external_id" else ""
        return await connection.fetchrow(f"select * from support_tickets where enterprise_number = $1 and {column} = $2{cast}", enterprise, value)

    @staticmethod
    async def find_message(connection: Connection, enterprise: str, ticket_id: int, **named: Any) -> Any | None:
        """A message of this ticket by its columns; the newest when more fit."""
        where = "".join(f" and {column} = ${n}" for n, column in enumerate(named, 3))
        return await connection.fetchrow(
            f"select * from support_messages where enterprise_number = $1 and ticket_id = $2{where} order by id desc limit 1",
            enterprise, ticket_id, *named.values(),
        )  # fmt: skip

    @staticmethod
    async def find_note(connection: Connection, enterprise: str, *, about: str, call_id: str | None = None, key: str | None = None) -> Any | None:
        """What telephony wrote about a call, or under a key."""
        return await connection.fetchrow(
            "select * from support_messages where enterprise_number = $1 and about = $2 and ($3::text is null or call_id = $3::text::uuid) "
            "and ($4::text is null or idempotency_key = $4) order by id limit 1",
            enterprise, about, call_id, key,
        )  # fmt: skip

    @staticmethod
    async def add_message(connection: Connection, enterprise: str, ticket: Any, message: Row) -> Any:
        """A message at its `sequence`; the ticket's clock goes on. external_message_id `own`: the row's own number."""
        number = await connection.fetchval("select nextval(pg_get_serial_sequence('support_messages', 'id'))")
        external = str(number) if message["external_message_id"] == "own" else message["external_message_id"]
        row = await connection.fetchrow(
            "insert into support_messages (enterprise_number, id, ticket_id, external_message_id, sender, body, attachments, sequence, author, call_id, about, "
            "idempotency_key) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::uuid, $11, $12) returning *",
            enterprise, number, ticket["id"], external, str(message["sender"]), message["body"], message.get("attachments", []), message["sequence"],
            message.get("author"), message.get("call_id"), message.get("about"), message.get("idempotency_key"),
        )  # fmt: skip
        await connection.execute(
            "update support_tickets set sequence = greatest(sequence, $3), updated_at = now() where enterprise_number = $1 and id = $2",
            enterprise, ticket["id"], message["sequence"],
        )  # fmt: skip
        return row

    @staticmethod
    async def add_attachments(connection: Connection, enterprise: str, message_id: int, attachments: Sequence[Attachment]) -> None:
        """Has copies of these fetched; what was handed in is one already."""
        await connection.executemany(
            "insert into support_attachments (enterprise_number, message_id, position, name, mime, source_url, data, size, state) "
            "values ($1, $2, $3, $4, $5, $6, $7::bytea, length($7::bytea), case when $7::bytea is null then 'waiting' else 'stored' end)",
            [(enterprise, message_id, n, item.name, item.mime, item.url or None, item.data) for n, item in enumerate(attachments)],
        )

    @staticmethod
    async def set_status(connection: Connection, enterprise: str, ticket: Any, status: TicketStatus, sequence: int, by: Side) -> Any:
        """The ticket's new row."""
        return await connection.fetchrow(
            "update support_tickets set status = $3, status_sequence = $4, status_by = $5, sequence = greatest(sequence, $4), updated_at = now() "
            "where enterprise_number = $1 and id = $2 returning *",
            enterprise, ticket["id"], str(status), sequence, str(by),
        )  # fmt: skip

    @staticmethod
    async def set_agent(connection: Connection, enterprise: str, ticket_id: int, agent: str | None) -> None:
        await connection.execute("update support_tickets set agent = $3 where enterprise_number = $1 and id = $2", enterprise, ticket_id, agent)

    @staticmethod
    async def has_only_calls(connection: Connection, enterprise: str, ticket_id: int) -> bool:
        """Whether everything in it was written by telephony."""
        return bool(
            await connection.fetchval(
                "select bool_and(call_id is not null) from support_messages where enterprise_number = $1 and ticket_id = $2", enterprise, ticket_id
            )
        )

    async def note_remote(self, enterprise: str, ticket_id: int, message_id: int | None, remote_id: str) -> None:
        """How the other side calls what it was told."""
        async with self._db.tenant(enterprise) as connection:
            if message_id is None:
                statement = "update support_tickets set remote_id = $3 where enterprise_number = $1 and id = $2 and remote_id is distinct from $3"
                await connection.execute(statement, enterprise, ticket_id, remote_id)
            else:
                statement = "update support_messages set remote_id = $4 where enterprise_number = $1 and ticket_id = $2 and id = $3"
                await connection.execute(statement, enterprise, ticket_id, message_id, remote_id)


def message_key(ticket_id: int, message_id: int) -> str:
    """The key of the delivery that tells of a message; the first one goes with its ticket."""
    return f"message:{ticket_id}:{message_id}"


def status_key(ticket_id: int, sequence: int) -> str:
    """The key of the delivery that tells of a status."""
    return f"status:{ticket_id}:{sequence}"


def ticket_json(row: Any) -> Row:
    """The record as both sides and the API see it."""
    return {
        "id": row["id"], "external_ticket_id": str(row["external_id"]), "subject": row["subject"], "status": row["status"], "project": row["project"],
        "external_url": row["external_url"], "customer_phone": row["customer_phone"], "agent": row["agent"], "remote_id": row["remote_id"],
        "shared": row["shared"], "sequence": row["sequence"], "created_at": _at(row["created_at"]), "updated_at": _at(row["updated_at"]),
    }  # fmt: skip


def message_json(row: Any, external_ticket_id: str) -> Row:
    """The record as both sides and the API see it; crm's message ids are numbers."""
    external = row["external_message_id"]
    return {
        "id": row["id"], "ticket_id": row["ticket_id"], "external_ticket_id": external_ticket_id,
        "external_message_id": int(external) if external is not None and row["sender"] == Side.CRM else external,
        "sender": row["sender"], "message": row["body"], "attachments": row["attachments"], "sequence": row["sequence"], "author": row["author"],
        "call": str(row["call_id"]) if row["call_id"] else None, "about": row["about"], "remote_id": row["remote_id"], "created_at": _at(row["created_at"]),
    }  # fmt: skip


def _with_copy(item: Row, copy: Any | None) -> Row:
    if copy is None:
        return item
    return {
        **item,
        "copy": str(copy["id"]),
        "state": copy["state"],
        "size": copy["size"] if copy["size"] is not None else item.get("size"),
        "error": copy["error"],
    }


def _at(value: Any) -> str | None:
    return iso(value.timestamp()) if value is not None else None


def _place(cursor: str) -> tuple[Any, int]:
    at, key = decode_cursor(cursor)
    if key.int >= 2**63:
        raise VochidError("the cursor is not one that this list gave", code="bad_cursor", field="cursor")
    return at, key.int
