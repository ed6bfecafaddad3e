"""Enterprises at work: loaded once, kept fresh by LISTEN/NOTIFY, changed through documents."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg
import structlog
from pydantic import ValidationError

from daemon.errors import NotFound, SettingsError, VochidError
from daemon.model.integration import IntegrationSettings
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault, VaultError
from daemon.store.enterprises import EnterpriseRepository, StoredEnterprise
from daemon.store.inbound_tokens import InboundTokens, TokenOwner
from daemon.store.pool import Database
from daemon.tenants.document import Enterprise
from daemon.tenants.secret_fields import is_sealed, keep_stored, map_secrets, shown

REFRESH_S = 90.0  # the safety net under NOTIFY
CHANNEL = "vochid_settings"
_OWN_COLUMNS = ("number", "name", "internal_phones", "integrations")

log = structlog.get_logger()


class PreconditionFailed(VochidError):
    """The document changed since it was read."""

    code = "precondition_failed"


@dataclass(frozen=True, slots=True)
class Tenancy:
    """One tenant, ready for use: secrets open, integrations parsed. `problems` says what could not be read."""

    enterprise: Enterprise
    integrations: Mapping[str, IntegrationSettings]
    problems: tuple[str, ...] = field(default=())


class Tenants:
    """All tenants of this database. Reads are from memory; writes go through the document.

    `kinds` gives the settings model of every integration there is.
    """

    def __init__(self, db: Database, vault: Vault, egress: EgressPolicy, kinds: Mapping[str, type[IntegrationSettings]]) -> None:
        self._db = db
        self._repository = EnterpriseRepository(db)
        self._vault = vault
        self._inbound = InboundTokens(db, vault)
        self._egress = egress
        self._kinds = kinds
        self._tenants: dict[str, Tenancy] = {}
        self._fingerprints: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._loading = asyncio.Lock()
        self.loaded_at: float | None = None  # Unix seconds
        self._listeners: list[Callable[[set[str]], None]] = []

    # -- reading -----------------------------------------------------------------------------------------------------------

    def get(self, number: str) -> Tenancy | None:
        """One tenant as last loaded."""
        return self._tenants.get(number)

    def all(self) -> Mapping[str, Tenancy]:
        """Every tenant as last loaded."""
        return self._tenants

    def on_change(self, listener: Callable[[set[str]], None]) -> None:
        """Calls `listener` with the numbers of tenants that are new, changed or gone, after every load."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Reads all tenants; one that cannot be read keeps its last good state and does not disturb the others."""
        async with self._loading:
            stored = await self._repository.all()
            fingerprints = {row.number: _fingerprint(row.document()) for row in stored}
            changed = {n for n in fingerprints.keys() | self._fingerprints.keys() if fingerprints.get(n) != self._fingerprints.get(n)}
            for row in stored:
                if row.number in changed:
                    self._take_in(row)
            for number in changed - fingerprints.keys():
                self._tenants.pop(number, None)
            self._fingerprints = fingerprints
            self.loaded_at = time.time()
        if changed:
            for listener in self._listeners:
                listener(changed)

    async def run(self) -> None:
        """Loads again on every notification, and now and then without one."""
        connection = await self._db.listen()
        try:
            await connection.add_listener(CHANNEL, lambda *_: self._changed.set())
            connection.add_termination_listener(lambda *_: self._changed.set())
            while not connection.is_closed():
                await self.load()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), REFRESH_S)
                self._changed.clear()
            raise ConnectionError("the connection for notifications is gone")
        finally:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=2)

    def _take_in(self, row: StoredEnterprise) -> None:
        try:
            tenancy = self._parse(row.document())
        except VochidError as error:
            log.error("enterprise cannot be read, its last good settings stay", enterprise=row.number, error=str(error), field=error.field)
            return
        for problem in tenancy.problems:
            log.error("part of an enterprise cannot be read", enterprise=row.number, problem=problem)
        self._tenants[row.number] = tenancy

    def _parse(self, document: dict[str, Any]) -> Tenancy:
        number = document["number"]
        problems: list[str] = []

        def opened(value: Any, path: str) -> Any:
            try:
                return self._open(value, number, path)
            except VaultError as error:
                problems.append(str(error))
                return None

        enterprise = self._validate(map_secrets(Enterprise, document, opened))
        integrations = {}
        for name, raw in document.get("integrations", {}).items():
            model = self._kinds.get(name)
            if model is None:
                problems.append(f"integration {name} is not known to this version")
                continue
            plain = map_secrets(model, raw, opened, f"integrations.{name}")
            try:
                integrations[name] = self._validate_integration(name, plain)
            except SettingsError as error:
                problems.append(f"{error.field}: {error}")
        return Tenancy(enterprise, integrations, tuple(problems))

    # -- documents ---------------------------------------------------------------------------------------------------------

    async def document(self, number: str, *, sealed: bool = False) -> tuple[dict[str, Any], str]:
        """A tenant's document and its ETag; secrets shown as set or not, or sealed with the instance's key."""
        stored = await self._repository.get(number)
        if stored is None:
            raise NotFound(f"there is no enterprise {number}")
        document = stored.document()
        return (document if sealed else self._shown(document)), _fingerprint(document)

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
            document = self._merged({**sent, "number": number}, before)
            await self._repository.put(connection, _stored(document))
            secret = self._open(document["secret"], number, "secret")
            await self._inbound.replace_within(connection, TokenOwner(number, "", "secret"), secret)
        await self.load()
        return self._shown(document), _fingerprint(document), before is None

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
        await self.load()

    async def candidate(self, number: str, name: str, sent: Any) -> IntegrationSettings:
        """The settings that `sent` would make, stored secrets filled in; nothing is stored. For the connection test."""
        document, _ = await self.document(number, sealed=True)
        model = self._kind(name)
        kept = keep_stored(model, _object(sent, name), document["integrations"].get(name, {}))
        plain = map_secrets(model, kept, lambda value, path: self._open(value, number, path), f"integrations.{name}")
        return self._validate_integration(name, plain)

    async def candidate_document(self, number: str, sent: dict[str, Any]) -> Enterprise:
        """The enterprise that `sent` would make, stored secrets filled in; nothing is stored. For the test of a PBX."""
        before = await self._repository.get(number)
        document = self._merged({**sent, "number": number, "integrations": {}}, before)
        return self._validate({**map_secrets(Enterprise, document, lambda value, path: self._open(value, number, path)), "integrations": {}})

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _merged(self, sent: dict[str, Any], before: StoredEnterprise | None) -> dict[str, Any]:
        """The document to store: sent values validated, defaults filled in, secrets kept or sealed."""
        number = sent["number"]
        stored = before.document() if before else {}
        integrations = sent.pop("integrations", {})
        integrations = {} if integrations is None else integrations
        if not isinstance(integrations, dict):
            raise SettingsError("must be an object by integration name", field="integrations")
        document = self._sealed_part(Enterprise, sent, stored, number, "", self._validate)
        if document.get("secret") is None:
            document["secret"] = self._seal(secrets.token_hex(16), number, "secret")
        document["integrations"] = {}
        for name, raw in integrations.items():
            model, prefix = self._kind(name), f"integrations.{name}"
            old = stored.get("integrations", {}).get(name, {})
            validate = partial(self._validate_integration, name)
            document["integrations"][name] = self._sealed_part(model, _object(raw, name), old, number, prefix, validate)
        return document

    def _sealed_part(
        self, model: Any, sent: dict[str, Any], stored: dict[str, Any], number: str, prefix: str, validate: Callable[[dict[str, Any]], Any]
    ) -> dict[str, Any]:
        try:
            kept = keep_stored(model, sent, stored)
            plain = map_secrets(model, kept, lambda value, path: self._open(value, number, path), prefix)
        except (AttributeError, TypeError):  # shapes that are wrong beyond what the walk expects: validation says what
            kept = plain = sent
        valid = validate(plain)
        normal = valid.model_dump(mode="json", by_alias=True)
        lying: dict[str, Any] = {}
        map_secrets(model, stored, lambda value, path: lying.setdefault(path, value), prefix)
        sealed: dict[str, Any] = {}

        def seal(value: Any, path: str) -> Any:
            sealed[path] = self._sealed(value, lying.get(path), number, path)
            return value

        map_secrets(model, kept, seal, prefix)
        return map_secrets(model, normal, lambda _, path: sealed.get(path), prefix)

    def _kind(self, name: str) -> type[IntegrationSettings]:
        model = self._kinds.get(name)
        if model is None:
            raise SettingsError(f"there is no integration {name}; there are: {', '.join(self._kinds)}", field=f"integrations.{name}")
        return model

    def _validate(self, plain: dict[str, Any]) -> Enterprise:
        try:
            return Enterprise.model_validate(plain)
        except ValidationError as error:
            raise _settings_error(error, "") from None

    def _validate_integration(self, name: str, plain: dict[str, Any]) -> IntegrationSettings:
        try:
            return self._kind(name).model_validate(plain, context={"egress": self._egress})
        except ValidationError as error:
            raise _settings_error(error, f"integrations.{name}") from None

    def _open(self, value: Any, number: str, path: str) -> Any:
        return self._vault.open(value["sealed"], number, path) if is_sealed(value) else value

    def _seal(self, secret: str, number: str, path: str) -> dict[str, str]:
        return {"sealed": self._vault.seal(secret, number, path)}

    def _sealed(self, value: Any, stored: Any, number: str, path: str) -> Any:
        """What to store for a sent secret: what lies there when it is the same, so that applying twice changes nothing."""
        if not isinstance(value, str):
            return value
        with contextlib.suppress(VaultError):
            if is_sealed(stored) and self._open(stored, number, path) == value:
                return stored
        return self._seal(value, number, path)

    def _shown(self, document: dict[str, Any]) -> dict[str, Any]:
        number = document["number"]

        def show(value: Any, path: str) -> Any:
            try:
                return shown(str(self._open(value, number, path)))
            except VaultError:
                return {"set": True, "last4": ""}

        result = map_secrets(Enterprise, document, show)
        result["integrations"] = {
            name: map_secrets(self._kinds[name], raw, show, f"integrations.{name}") if name in self._kinds else {"enabled": False}
            for name, raw in document.get("integrations", {}).items()
        }
        return result


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError("must be an object", field=f"integrations.{name}")
    return value


def _stored(document: dict[str, Any]) -> StoredEnterprise:
    settings = {key: value for key, value in document.items() if key not in _OWN_COLUMNS}
    return StoredEnterprise(document["number"], document["name"], settings, document["integrations"], document["internal_phones"])


def _fingerprint(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _check_match(if_match: str | None, before: StoredEnterprise | None) -> None:
    if if_match is None:
        return
    current = _fingerprint(before.document()) if before else None
    wanted = [tag.strip().removeprefix("W/").strip('"') for tag in if_match.split(",")]
    if current is None or (wanted != ["*"] and current not in wanted):
        raise PreconditionFailed("the document was changed since you read it: read it again")


def _settings_error(error: ValidationError, prefix: str) -> SettingsError:
    """The first problem, with the dotted name of its field; several are counted."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    first = problems[0]
    path = ".".join([prefix] * bool(prefix) + [str(part) for part in first["loc"] if part not in ("directory", "http", "none", "csv")])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such setting"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return SettingsError(f"{message}{more}", field=path)
