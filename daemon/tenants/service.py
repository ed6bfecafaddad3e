"""Enterprises at work: read from the cache, changed through documents."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg

from daemon.errors import NotFound, SettingsError, VochidError
from daemon.model.integration import IntegrationSettings
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.enterprises import EnterpriseRepository, StoredEnterprise
from daemon.store.inbound_tokens import InboundTokens, TokenOwner
from daemon.store.pool import Database
from daemon.tenants.cache import SettingsCache
from daemon.tenants.document import Enterprise
from daemon.tenants.documents import Documents, Tenancy, fingerprint

CHANNEL = "vochid_settings"
ERASED_CHANNEL = "vochid_erased"  # a customer was forgotten: what daemons remember of an enterprise's customers is dropped
_OWN_COLUMNS = ("number", "name", "internal_phones", "integrations")

__all__ = ["PreconditionFailed", "Tenancy", "Tenants"]


class PreconditionFailed(VochidError):
    """The document changed since it was read."""

    code = "precondition_failed"


class Tenants:
    """All tenants of this database. Reads are from memory (cache.py); writes go through the document (documents.py).

    `kinds` gives the settings model of every integration there is.
    """

    def __init__(self, db: Database, vault: Vault, egress: EgressPolicy, kinds: Mapping[str, type[IntegrationSettings]]) -> None:
        self._db = db
        self._repository = EnterpriseRepository(db)
        self._inbound = InboundTokens(db, vault)
        self._kinds = kinds
        self._documents = Documents(vault, egress, kinds)
        self._cache = SettingsCache(self._repository.read, self._documents.parse)
        self._on_erased: list[Callable[[set[str]], None]] = []

    # -- reading -----------------------------------------------------------------------------------------------------------

    def get(self, number: str) -> Tenancy | None:
        """One tenant as last loaded."""
        return self._cache.get(number)

    def all(self) -> Mapping[str, Tenancy]:
        """Every tenant as last loaded."""
        return self._cache.all()

    def matrix(self) -> Mapping[str, frozenset[str]]:
        """Which integrations are at work, by tenant; a paused one has none."""
        return self._cache.matrix()

    @property
    def kinds(self) -> Mapping[str, type[IntegrationSettings]]:
        """The settings model of every integration there is."""
        return self._kinds

    def on_change(self, listener: Callable[[set[str]], None]) -> None:
        """Calls `listener` with the numbers of tenants that are new, changed or gone, after every load."""
        self._cache.on_change(listener)

    def on_erased(self, listener: Callable[[set[str]], None]) -> None:
        """Calls `listener` with the enterprise of which a customer was erased, by whichever daemon or command."""
        self._on_erased.append(listener)

    async def load(self) -> None:
        """Reads all tenants; one that cannot be read keeps its last good state and does not disturb the others."""
        await self._cache.load()

    async def refresh(self, number: str | None = None, *, others_too: bool = False) -> bool:
        """Reads one tenant (or all) anew; whether it is there. others_too: the other daemons do so as well."""
        await (self._cache.load() if number is None else self._cache.refresh({number}))
        if others_too:
            numbers = self.all() if number is None else [number]
            said = [json.dumps({"enterprise_number": n, "integration_type": None}) for n in numbers]
            await self._db.fetch("select pg_notify($1, said) from unnest($2::text[]) as said", CHANNEL, said)
        return number is None or number in self.all()

    @property
    def age_s(self) -> float | None:
        """Seconds since all settings were read last."""
        return self._cache.age_s

    def read_counts(self, number: str | None) -> tuple[int, int]:
        """How often settings were read since the start, and how often there were none; of one tenant, or of all."""
        return self._cache.counts(number)

    def report(self) -> None:
        """Hands what the cache counted to the metrics."""
        self._cache.report()

    async def run(self) -> None:
        """Loads again what notifications name, and now and then all without one."""
        connection = await self._db.listen()
        try:
            await connection.add_listener(CHANNEL, lambda *said: self._cache.notified(said[-1]))
            await connection.add_listener(ERASED_CHANNEL, lambda *said: self._erased(said[-1]))
            connection.add_termination_listener(lambda *_: self._cache.wake())
            await self._cache.run(lambda: not connection.is_closed())
            raise ConnectionError("the connection for notifications is gone")
        finally:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=2)

    def _erased(self, said: str) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            number = str(json.loads(said)["enterprise_number"])
            for listener in self._on_erased:
                listener({number})

    # -- documents ---------------------------------------------------------------------------------------------------------

    async def document(self, number: str, *, sealed: bool = False) -> tuple[dict[str, Any], str]:
        """A tenant's document and its ETag; secrets shown as set or not, or sealed with the instance's key."""
        stored = await self._repository.get(number)
        if stored is None:
            raise NotFound(f"there is no enterprise {number}")
        document = stored.document()
        return (document if sealed else self._documents.shown(document)), fingerprint(document)

    async def put(self, number: str, sent: Any, if_match: str | None = None) -> tuple[dict[str, Any], str, bool]:
        """Stores a document; gives it as shown, its ETag, and whether it was created.

        Raises SettingsError naming the field, PreconditionFailed when `if_match` is no longer true.
        """
        if not isinstance(sent, dict):
            raise SettingsError("an enterprise document is a JSON object")
        if str(sent.get("number", number)) != number:
            raise SettingsError("is not the number in the address", field="number")
        async with self._db.tenant(number) as connection:
            before = await self._repository.get(number, connection)
            _check_match(if_match, before)
            document = self._documents.merged({**sent, "number": number}, before)
            await self._repository.put(connection, _stored(document))
            secret = self._documents.open(document["secret"], number, "secret")
            await self._inbound.replace_within(connection, TokenOwner(number, "", "secret"), secret)
            for owner, tokens in self._documents.inbound_tokens(document, before):
                await self._inbound.set_within(connection, owner, tokens)
        await self._cache.refresh({number})
        return self._documents.shown(document), fingerprint(document), before is None

    async def put_integration(self, number: str, name: str, sent: Any, if_match: str | None = None) -> tuple[dict[str, Any], bool]:
        """Stores one integration; gives it as shown, and whether it was created."""
        document, etag = await self.document(number, sealed=True)
        created = name not in document["integrations"]
        document["integrations"] = {**document["integrations"], name: sent}
        result, _, _ = await self.put(number, document, if_match or etag)
        return result["integrations"][name], created

    async def remove_integration(self, number: str, name: str) -> None:
        """Takes one integration away. Raises NotFound."""
        document, _ = await self.document(number, sealed=True)
        if name not in document["integrations"]:
            raise NotFound(f"enterprise {number} has no integration {name}")
        document["integrations"] = {key: value for key, value in document["integrations"].items() if key != name}
        await self.put(number, document)

    async def set_paused(self, number: str, paused: bool) -> None:
        """Pauses or resumes a tenant."""
        document, _ = await self.document(number, sealed=True)
        await self.put(number, {**document, "paused": paused})

    async def remove(self, number: str, *, purge: bool = False) -> None:
        """Removes a tenant. Raises NotFound."""
        if not await self._repository.remove(number, purge_data=purge):
            raise NotFound(f"there is no enterprise {number}")
        await self._cache.refresh({number})

    async def known_tokens(self) -> list[tuple[str, str]]:
        """(enterprise, token) of every inbound token that stands in a document; what cannot be opened is left out."""
        found = []
        for number in self.all():
            document, _ = await self.document(number, sealed=True)
            with contextlib.suppress(VochidError):
                found += [(number, secret)] if (secret := self._documents.open(document.get("secret"), number, "secret")) else []
                found += [(number, token) for _, tokens in self._documents.inbound_tokens(document, None) for token in tokens]
        return found

    async def candidate(self, number: str, name: str, sent: Any) -> IntegrationSettings:
        """The settings that `sent` would make, stored secrets filled in; nothing is stored. For the connection test."""
        document, _ = await self.document(number, sealed=True)
        return self._documents.candidate(number, name, sent, document["integrations"].get(name, {}))

    async def candidate_document(self, number: str, sent: dict[str, Any]) -> Enterprise:
        """The enterprise that `sent` would make, stored secrets filled in; nothing is stored. For the test of a PBX."""
        return self._documents.candidate_document(number, sent, await self._repository.get(number))


def _stored(document: dict[str, Any]) -> StoredEnterprise:
    settings = {key: value for key, value in document.items() if key not in _OWN_COLUMNS}
    return StoredEnterprise(document["number"], document["name"], settings, document["integrations"], document["internal_phones"])


def _check_match(if_match: str | None, before: StoredEnterprise | None) -> None:
    if if_match is None:
        return
    current = fingerprint(before.document()) if before else None
    wanted = [tag.strip().removeprefix("W/").strip('"') for tag in if_match.split(",")]
    if current is None or (wanted != ["*"] and current not in wanted):
        raise PreconditionFailed("the document was changed since you read it: read it again")
