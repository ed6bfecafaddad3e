"""People, their set-up links and their sessions. Everything goes through the named functions of sql/: no tenant is known yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from daemon.errors import NotFound, VochidError
from daemon.model.call import iso
from daemon.model.person import Person, Role, Session
from daemon.store.pool import Database


class PeopleRepository:
    """Loads and stores people."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def nobody(self) -> bool:
        """Whether no person exists yet."""
        return not await self._db.fetchval("select has_users()")

    async def find(self, login: str) -> tuple[Person, str | None, str | None] | None:
        """(person, password hash, sealed second factor) of a login, or None."""
        return _with_secrets(await self._db.fetch("select * from find_user($1)", login))

    async def get(self, user_id: int) -> tuple[Person, str | None, str | None]:
        """As find, by id. Raises NotFound."""
        found = _with_secrets(await self._db.fetch("select * from get_user($1)", user_id))
        if found is None:
            raise NotFound("there is no such person")
        return found

    async def list(self, enterprise: str | None) -> list[Person]:
        """The people of an enterprise; None: everybody."""
        return [_person(row) for row in await self._db.fetch("select * from list_users($1)", enterprise)]

    async def add(self, login: str, name: str, role: Role, enterprise: str | None) -> int:
        """Stores a person who has no password yet. Raises VochidError naming the field."""
        try:
            return int(await self._db.fetchval("select add_user($1, $2, $3, $4)", login, name, str(role), enterprise))
        except asyncpg.UniqueViolationError:
            raise VochidError(f"there is a person with the login {login} already", code="login_taken", field="login") from None
        except asyncpg.ForeignKeyViolationError:
            raise NotFound(f"there is no enterprise {enterprise}", field="enterprise") from None

    async def set_disabled(self, user_id: int, disabled: bool) -> None:
        """A disabled person's sessions and links end at once."""
        await self._db.fetch("select set_user_disabled($1, $2)", user_id, disabled)

    async def set_role(self, user_id: int, role: Role) -> None:
        await self._db.fetch("select set_user_role($1, $2)", user_id, str(role))

    async def set_password(self, user_id: int, hashed: str) -> None:
        await self._db.fetch("select set_password($1, $2)", user_id, hashed)

    async def set_totp(self, user_id: int, sealed: str | None, step: int = 0) -> None:
        await self._db.fetch("select set_totp($1, $2, $3)", user_id, sealed, step)

    async def use_totp_step(self, user_id: int, step: int) -> bool:
        """True the first time only."""
        return bool(await self._db.fetchval("select use_totp_step($1, $2)", user_id, step))

    # -- set-up links ------------------------------------------------------------------------------------------------------

    async def add_link(self, token_hash: bytes, user_id: int | None, lives_s: float) -> None:
        """user_id None: for the very first person."""
        await self._db.fetch("select add_setup_link($1, $2, $3)", token_hash, user_id, lives_s)

    async def find_link(self, token_hash: bytes) -> tuple[int | None, str | None] | None:
        """(person, login) that a live link is for, both None for the first person; None: there is no such link."""
        rows = await self._db.fetch("select * from find_setup_link($1)", token_hash)
        return (rows[0]["user_id"], rows[0]["login"]) if rows else None

    async def use_link(self, token_hash: bytes, login: str | None, hashed: str) -> int | None:
        """Sets the password and uses the link up; gives the person's id, None when it was used or has expired."""
        done = await self._db.fetchval("select use_setup_link($1, $2, $3)", token_hash, login, hashed)
        return None if done is None else int(done)

    # -- sessions ----------------------------------------------------------------------------------------------------------

    async def start_session(self, token_hash: bytes, *, user_id: int | None, enterprise: str | None, lives_s: float, address: str, agent: str) -> None:
        await self._db.fetch("select start_session($1, $2, $3, $4, $5, $6)", token_hash, user_id, enterprise, lives_s, address, agent)

    async def find_session(self, token_hash: bytes, idle_s: float, csrf: str) -> Session | None:
        """The live session, which counts as seen now."""
        rows = await self._db.fetch("select * from find_session($1, $2)", token_hash, idle_s)
        if not rows:
            return None
        row = rows[0]
        return Session(
            row["id"], row["user_id"], row["enterprise_number"], Role(row["role"]), row["login"], row["name"], row["proved_s"], row["second_factor"], csrf
        )

    async def prove_session(self, session_id: int) -> None:
        await self._db.fetch("select prove_session($1)", session_id)

    async def end_session(self, token_hash: bytes) -> None:
        await self._db.fetch("select end_session($1)", token_hash)

    async def list_sessions(self, user_id: int, idle_s: float) -> Sequence[dict[str, Any]]:
        """A person's live sessions, the last seen first."""
        rows = await self._db.fetch("select * from list_sessions($1, $2)", user_id, idle_s)
        return [{**dict(row), "created_at": iso(row["created_at"].timestamp()), "seen_at": iso(row["seen_at"].timestamp())} for row in rows]

    async def revoke_session(self, user_id: int, session_id: int) -> None:
        """Ends one session of a person. Raises NotFound."""
        if not await self._db.fetchval("select revoke_session($1, $2)", user_id, session_id):
            raise NotFound("there is no such session")

    async def revoke_other_sessions(self, user_id: int, keep: int) -> None:
        await self._db.fetch("select revoke_other_sessions($1, $2)", user_id, keep)

    async def end_cabinet_sessions(self, enterprise: str) -> None:
        await self._db.fetch("select end_cabinet_sessions($1)", enterprise)

    async def forget_expired(self) -> None:
        await self._db.fetch("select forget_expired_sessions()")


def _with_secrets(rows: list[asyncpg.Record]) -> tuple[Person, str | None, str | None] | None:
    return (_person(rows[0]), rows[0]["password_hash"], rows[0]["totp"]) if rows else None


def _person(row: asyncpg.Record) -> Person:
    return Person(
        id=row["id"],
        login=row["login"],
        name=row["name"],
        role=Role(row["role"]),
        enterprise=row["enterprise_number"],
        has_password=row["password_hash"] is not None,
        has_totp=row["totp"] is not None,
        created_at=row["created_at"].timestamp(),
        last_login_at=row["last_login_at"].timestamp() if row["last_login_at"] else None,
        disabled=row["disabled_at"] is not None,
    )
