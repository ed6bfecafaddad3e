"""Changes of documents, with their place in the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from admin_http.services import Services
from daemon.errors import NotFound
from daemon.store.audit import Actor

MAX_CHANGES = 50
MAX_TEXT = 200


async def put_document(services: Services, by: Actor, number: str, sent: Any, if_match: str | None = None) -> tuple[dict[str, Any], str, bool]:
    """As Tenants.put, and the audit says what became different."""
    before = await _document(services, number)
    document, etag, created = await services.tenants.put(number, sent, if_match)
    found = changes(before, document)
    if found:
        await services.people.audit.note(by, "enterprise created" if created else "settings changed", number, enterprise=number, details=found)
    return document, etag, created


async def put_integration_settings(
    services: Services, by: Actor, number: str, name: str, sent: Any, if_match: str | None = None
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """As Tenants.put_integration, and the audit says what became different."""
    before = (await _document(services, number)).get("integrations", {}).get(name, {})
    settings, created = await services.tenants.put_integration(number, name, sent, if_match)
    found = changes(before, settings)
    if found:
        await services.people.audit.note(by, "integration connected" if created else "integration changed", name, enterprise=number, details=found)
    return settings, created


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """What differs between two shown documents, by dotted place: `old → new`. Secrets only say that they changed."""
    old, new = _flat(before), _flat(after)
    found = {place: _told(old.get(place), new.get(place)) for place in sorted(old.keys() | new.keys()) if old.get(place) != new.get(place)}
    if len(found) > MAX_CHANGES:
        found = {**dict(list(found.items())[:MAX_CHANGES]), "…": f"and {len(found) - MAX_CHANGES} more"}
    return found


def _told(old: Any, new: Any) -> str:
    if _is_secret(old) or _is_secret(new):
        return "secret set" if old is None else "secret cleared" if new is None else "secret changed"
    return " → ".join("–" if value is None else str(value)[:MAX_TEXT] for value in (old, new))


def _is_secret(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"set", "last4"}


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Leaves by their place; items of a list by name or number, so that one inserted does not move the others."""
    if isinstance(value, Mapping) and not _is_secret(value):
        return {key: leaf for name, item in value.items() for key, leaf in _flat(item, f"{place}.{name}" if place else str(name)).items()}
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        named = {str(item.get("name") if "host" in item else item.get("number", index)): item for index, item in enumerate(value)}
        return _flat(named, place)
    return {place: value}


async def _document(services: Services, number: str) -> dict[str, Any]:
    try:
        document, _ = await services.tenants.document(number)
    except NotFound:
        return {}
    return dict(document)
