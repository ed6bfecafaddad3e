"""An enterprise of the predecessor as a document of ours, and what could not be taken. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.errors import VochidError
from daemon.model.integration import IntegrationSettings
from daemon.tenants.mapping import assign, parse_changes

MIN_SECRET = 8
MAX_SECRET = 200
_ITS_OWN = ("last_sync", "version", "updated_at", "created_at")  # its bookkeeping; not settings
_EXTENSION = frozenset("0123456789*#")


@dataclass(frozen=True, slots=True)
class Source:
    """What its database holds of one enterprise. `phones`: (number, owner)."""

    number: str
    name: str
    secret: str | None
    config: Mapping[str, Any]
    phones: Sequence[tuple[str, str]]
    is_active: bool = True


def document_of(source: Source, kinds: Mapping[str, type[IntegrationSettings]], existing: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """The document to store, and a line for everything that could not be taken. `existing`: what is stored here (secrets in any form), or None.
    What was set here is never overwritten, so that a second run changes nothing."""
    remarks: list[str] = []
    document = dict(existing) if existing else _new(source, remarks)
    known = {phone["number"] for phone in document["internal_phones"]}
    phones = [phone for phone in _phones(source, remarks) if phone["number"] not in known]
    document["internal_phones"] = [*document["internal_phones"], *phones]
    integrations = dict(document["integrations"])
    for name, raw in sorted(source.config.items()):
        model = kinds.get(name)
        if name in integrations:
            continue
        if model is None or not isinstance(raw, Mapping):
            remarks.append(f"not taken: {name}: {'this version has no such integration' if model is None else 'its settings are no object'}")
        elif raw:
            integrations[name] = _integration(name, raw, model, remarks)
    document["integrations"] = integrations
    return document, remarks


def _new(source: Source, remarks: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "number": source.number,
        "name": source.name.strip()[:200] or source.number,
        "paused": not source.is_active,
        "pbxs": [],
        "internal_phones": [],
        "integrations": {},
    }
    secret = source.secret or ""
    if MIN_SECRET <= len(secret) <= MAX_SECRET and secret.isprintable():
        document["secret"] = secret
    elif secret:
        remarks.append(
            f"secret replaced by a random one, because it has not {MIN_SECRET} to {MAX_SECRET} printable characters: whoever uses it needs the new one"
        )
    if not source.is_active:
        remarks.append("taken as paused: it is switched off there")
    return document


def _phones(source: Source, remarks: list[str]) -> list[dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for number, owner in source.phones:
        number = number.strip()
        if not 1 <= len(number) <= 16 or not set(number) <= _EXTENSION:
            remarks.append(f"not taken: phone {number[:40]!r}: not an internal number")
        else:
            found.setdefault(number, {"number": number, "owner": owner.strip()[:200]})
    return list(found.values())


def _integration(name: str, raw: Mapping[str, Any], model: type[IntegrationSettings], remarks: list[str]) -> dict[str, Any]:
    taken = {key: value for key, value in raw.items() if key in model.model_fields and value is not None}
    left = [key for key in raw if key not in model.model_fields and key not in _ITS_OWN]
    if left:
        remarks.append(f"not taken: {name}: settings that there are not here: {', '.join(sorted(map(str, left)))[:300]}")
    if "user_extensions" in taken:
        taken["user_extensions"] = _extensions(name, taken["user_extensions"], remarks)
    return taken


def _extensions(name: str, raw: Any, remarks: list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for user, extension in raw.items() if isinstance(raw, Mapping) else ():
        try:
            one = parse_changes({user: extension})
        except VochidError as error:
            remarks.append(f"not taken: {name}: {error}")
            continue
        held = next((other for other, code in found.items() if code and code in one.values()), None)
        if held is not None:
            remarks.append(f"not taken: {name}: extension {extension} of user {user}, because user {held} has it too")
            one = dict.fromkeys(one)
        found = assign(found, one)
    return found
