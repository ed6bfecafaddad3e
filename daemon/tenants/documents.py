"""What becomes of a document: checked, its secrets sealed, opened or shown. Pure but for the vault's keys and random secrets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import ValidationError

from daemon.errors import SettingsError
from daemon.model.integration import IntegrationSettings
from daemon.security.egress import EgressPolicy
from daemon.security.tokens import TokenOwner
from daemon.security.vault import Vault, VaultError
from daemon.store.enterprises import StoredEnterprise
from daemon.tenants.document import Enterprise
from daemon.tenants.secret_fields import is_sealed, is_shown, keep_stored, map_secrets, shown

STAND_IN = "lost-secret"
# What counts of settings that a document does not name.
_LEFT_OUT = Enterprise(number="0", name="0", pbxs=()).model_dump(mode="json", by_alias=True, exclude={"number", "name", "pbxs", "secret"})
HALF_A_CHARACTER = "there is half of a character (a lone surrogate) in it, which cannot be stored"


@dataclass(frozen=True, slots=True)
class Tenancy:
    """One tenant, ready for use: secrets open, integrations parsed. `problems` says what could not be read.

    locked: integrations that cannot be reached, for a secret of theirs is lost; calls are planned for them by all else that is set, and wait.
    """

    enterprise: Enterprise
    integrations: Mapping[str, IntegrationSettings]
    problems: tuple[str, ...] = field(default=())
    recordings_epoch: int = 0
    source: StoredEnterprise | None = field(default=None, repr=False)
    locked: Mapping[str, IntegrationSettings] = field(default_factory=dict)


class Documents:
    """`kinds` gives the settings model of every integration there is."""

    def __init__(self, vault: Vault, egress: EgressPolicy, kinds: Mapping[str, type[IntegrationSettings]]) -> None:
        self._vault = vault
        self._egress = egress
        self._kinds = kinds

    def parse(self, row: StoredEnterprise, known: Tenancy | None = None) -> Tenancy:
        """A stored tenant ready for use; integrations that are as in `known` are taken over. Raises SettingsError when the document
        itself cannot be read."""
        former = known.source.integrations if known and known.source and not known.problems else {}
        document = row.document()
        number = document["number"]
        problems: list[str] = []

        def opened(value: Any, path: str) -> Any:
            try:
                return self.open(value, number, path)
            except VaultError as error:
                problems.append(str(error))
                return None

        enterprise = self._validate(map_secrets(Enterprise, document, opened))
        integrations: dict[str, IntegrationSettings] = {}
        locked: dict[str, IntegrationSettings] = {}
        for name, raw in document.get("integrations", {}).items():
            model = self._kinds.get(name)
            if model is None:
                problems.append(f"integration {name} is not known to this version")
                continue
            if known is not None and name in known.integrations and former.get(name) == raw:
                integrations[name] = known.integrations[name]
                continue
            known_problems = len(problems)
            plain = map_secrets(model, raw, opened, f"integrations.{name}")
            try:
                integrations[name] = self._validate_integration(name, plain)
            except SettingsError as error:
                if len(problems) > known_problems:
                    locked |= self._locked(name, model, raw)
                problems.append(f"{error.field}: {error}")
        return Tenancy(enterprise, integrations, tuple(problems), row.recordings_epoch, row, locked)

    def _locked(self, name: str, model: type[IntegrationSettings], raw: dict[str, Any]) -> dict[str, IntegrationSettings]:
        """An integration's settings with something meaningless for each of its secrets; none when they are not valid even so."""
        with contextlib.suppress(SettingsError):
            blanked = map_secrets(model, raw, lambda _, path: model.stand_ins.get(path, STAND_IN))
            return {name: self._validate_integration(name, blanked)}
        return {}

    def candidate_document(self, number: str, sent: dict[str, Any], before: StoredEnterprise | None) -> Enterprise:
        """The enterprise that `sent` would make, without its integrations."""
        document = self.merged({**sent, "number": number, "integrations": {}}, before)
        return self._validate({**map_secrets(Enterprise, document, lambda value, path: self.open(value, number, path)), "integrations": {}})

    def candidate(self, number: str, name: str, sent: Any, stored: dict[str, Any]) -> IntegrationSettings:
        """The settings that `sent` would make of an integration, stored secrets filled in."""
        model = self._kind(name)
        kept = keep_stored(model, _object(sent, name), stored)
        plain = map_secrets(model, kept, lambda value, path: self.open(value, number, path), f"integrations.{name}")
        return self._validate_integration(name, plain)

    def merged(self, sent: dict[str, Any], before: StoredEnterprise | None) -> dict[str, Any]:
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
            document["integrations"][name] = self._sealed_part(
                model, self._rotated(model, _object(raw, name), old, number, prefix), old, number, prefix, validate
            )
        return document

    def _rotated(self, model: type[IntegrationSettings], sent: dict[str, Any], stored: dict[str, Any], number: str, prefix: str) -> dict[str, Any]:
        """`sent` with the former values of secrets that have an overlap, where they are replaced and nothing is said of the former one."""
        moved = {}
        for newest, former in model.rotates.items():
            is_silent = is_shown(sent.get(former)) or (sent.get(former) is None and (former not in sent or stored.get(former) is None))
            with contextlib.suppress(VaultError):
                old = self.open(stored.get(newest), number, f"{prefix}.{newest}")
                if is_silent and isinstance(sent.get(newest), str) and old is not None and sent[newest] != old:
                    moved[former] = old
        return {**sent, **moved}

    def inbound_tokens(self, document: dict[str, Any], before: StoredEnterprise | None) -> list[tuple[TokenOwner, set[str]]]:
        """What the other sides of a stored document's integrations prove themselves with, by owner; nothing for those that are gone."""
        number, integrations = document["number"], document["integrations"]
        found = []
        for name in {*integrations, *(before.integrations if before else ())}:
            for purpose, named in (self._kinds[name].inbound_tokens if name in self._kinds else {}).items():
                raw = integrations.get(name, {})
                tokens = {self.open(raw[one], number, f"integrations.{name}.{one}") for one in named if raw.get(one) is not None}
                found.append((TokenOwner(number, name, purpose), tokens))
        return found

    def _sealed_part(
        self, model: Any, sent: dict[str, Any], stored: dict[str, Any], number: str, prefix: str, validate: Callable[[dict[str, Any]], Any]
    ) -> dict[str, Any]:
        try:
            kept = keep_stored(model, sent, stored)
            plain = map_secrets(model, kept, lambda value, path: self.open(value, number, path), prefix)
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
        except UnicodeEncodeError:  # pydantic cannot say what is wrong with it
            raise SettingsError(HALF_A_CHARACTER, field="") from None

    def _validate_integration(self, name: str, plain: dict[str, Any]) -> IntegrationSettings:
        try:
            return self._kind(name).model_validate(plain, context={"egress": self._egress})
        except ValidationError as error:
            raise _settings_error(error, f"integrations.{name}") from None
        except UnicodeEncodeError:
            raise SettingsError(HALF_A_CHARACTER, field=f"integrations.{name}") from None

    def open(self, value: Any, number: str, path: str) -> Any:
        """A secret as it is, sealed or not. Raises VaultError."""
        return self._vault.open(value["sealed"], number, path) if is_sealed(value) else value

    def _seal(self, secret: str, number: str, path: str) -> dict[str, str]:
        return {"sealed": self._vault.seal(secret, number, path)}

    def _sealed(self, value: Any, stored: Any, number: str, path: str) -> Any:
        """What to store for a sent secret: what lies there when it is the same, so that applying twice changes nothing."""
        if not isinstance(value, str):
            return value
        with contextlib.suppress(VaultError):
            if is_sealed(stored) and self.open(stored, number, path) == value:
                return stored
        return self._seal(value, number, path)

    def shown(self, document: dict[str, Any]) -> dict[str, Any]:
        """A document as people see it: secrets as set or not, and what it leaves out as it counts: rows that were written by SQL leave much out."""
        number = document["number"]

        def show(value: Any, path: str) -> Any:
            try:
                return shown(str(self.open(value, number, path)))
            except VaultError:
                return {"set": True, "last4": ""}

        result = map_secrets(Enterprise, document, show)
        result["integrations"] = {
            name: map_secrets(self._kinds[name], raw, show, f"integrations.{name}") if name in self._kinds else {"enabled": False}
            for name, raw in document.get("integrations", {}).items()
        }
        return {**_LEFT_OUT, **result}


def fingerprint(document: dict[str, Any]) -> str:
    """Names a document's content: the ETag."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError("must be an object", field=f"integrations.{name}")
    return value


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
