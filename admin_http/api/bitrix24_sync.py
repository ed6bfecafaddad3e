"""Bitrix24's two-way sync, at the predecessor's paths and in its words: {"status": "success", "data": …}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from aiohttp import web

from admin_http.api.bodies import read_object
from admin_http.api.routing import DEFAULT_LIMIT, MAX_LIMIT, Ask, Route, answer
from admin_http.audited import put_integration_settings
from admin_http.ports import SyncPages, SyncPort
from daemon.errors import NotFound, VochidError
from daemon.model.crm_record import RecordType

BITRIX24 = "bitrix24"
MAX_PAGE = 1_000_000
MAX_IDS = 10_000
OBJECTS = (RecordType.COMPANY, RecordType.CONTRACT, RecordType.OBJECT)
USERS = (RecordType.USER,)
_SETTABLE = ("webhook_url", "client_id", "client_secret", "domain", "application_token", "enabled", "mode")
_FILTERS = ("sync_objects", "sync_users", "types", "ids", "updated_since", "direction")


async def setup(ask: Ask) -> web.StreamResponse:
    """Stores the portal's address and credentials, what is not named stays as it is, and tries them."""
    body = await read_object(ask.request)
    _only(body, _SETTABLE)
    document, _ = await ask.services.tenants.document(ask.enterprise)
    before = document["integrations"].get(BITRIX24, {})
    await put_integration_settings(ask.services, ask.actor, ask.enterprise, BITRIX24, {**before, **body})
    checks = await ask.services.check(ask.enterprise, BITRIX24, None)
    return _success({"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]})


async def health(ask: Ask) -> web.StreamResponse:
    """Whether the sync is at work, what waits, and how the last long one went."""
    document, _ = await ask.services.tenants.document(ask.enterprise)
    settings = document["integrations"].get(BITRIX24)
    states = await ask.services.outbox.connection_states(ask.enterprise)
    state = states.get(BITRIX24, {"state": "ok", "reason": ""})
    is_on = settings is not None and bool(settings.get("enabled", True)) and not document.get("paused", False)
    last = await _sync(ask).jobs.last(ask.enterprise)
    return _success(
        {
            "configured": settings is not None, "enabled": is_on, "state": state["state"] if is_on else "off", "reason": state["reason"] if is_on else "",
            "records": await _sync(ask).waiting(ask.enterprise), "errors_count": (await _sync(ask).errors.stats(ask.enterprise))["total"],
            "last_job": last.shown() if last is not None else None,
        }
    )  # fmt: skip


async def sync_to(ask: Ask) -> web.StreamResponse:
    return await _start(ask, "to")


async def sync_from(ask: Ask) -> web.StreamResponse:
    return await _start(ask, "from")


async def job(ask: Ask) -> web.StreamResponse:
    return answer((await _sync(ask).job(ask.enterprise, ask.part("job"))).shown())


async def mappings(ask: Ask) -> web.StreamResponse:
    return await _paged(ask, _sync(ask).mappings)


async def stats(ask: Ask) -> web.StreamResponse:
    return _success(await _sync(ask).stats(ask.enterprise))


async def clear_cache(ask: Ask) -> web.StreamResponse:
    """Settings are read anew by every daemon, and who looks after a customer is asked anew; mappings stay, for without them everything would be made again."""
    if not await ask.services.tenants.refresh(ask.enterprise, others_too=True):
        raise NotFound(f"there is no enterprise {ask.enterprise}")
    await ask.services.refresh(ask.enterprise)
    return _success({"cleared": True})


async def errors(ask: Ask) -> web.StreamResponse:
    return await _paged(ask, _sync(ask).errors)


async def error_stats(ask: Ask) -> web.StreamResponse:
    return _success(await _sync(ask).errors.stats(ask.enterprise))


async def retry_error(ask: Ask) -> web.StreamResponse:
    await _sync(ask).retry(ask.enterprise, ask.id())
    return _success({"retried": True})


# -- inside ------------------------------------------------------------------------------------------------------------------------


def _sync(ask: Ask) -> SyncPort:
    assert ask.services.joined.bitrix24_sync is not None
    if ask.services.tenants.get(ask.enterprise) is None:
        raise NotFound(f"there is no enterprise {ask.enterprise}")
    return ask.services.joined.bitrix24_sync


def _success(data: Any) -> web.Response:
    return answer({"status": "success", "data": data})


async def _start(ask: Ask, direction: str) -> web.StreamResponse:
    filters = read_filters(await read_object(ask.request, may_be_empty=True), direction)
    return answer({"job": await _sync(ask).start(ask.enterprise, direction, filters)}, 202)


async def _paged(ask: Ask, rows: SyncPages) -> web.StreamResponse:
    page, limit = _number(ask, "page", 1, MAX_PAGE), _number(ask, "limit", DEFAULT_LIMIT, MAX_LIMIT)
    items, total = await rows.page(ask.enterprise, page=page, limit=limit)
    return _success({"items": items, "total": total, "page": page, "limit": limit})


def _number(ask: Ask, name: str, otherwise: int, most: int) -> int:
    text = ask.query(name) or str(otherwise)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise VochidError(f"{name} is a number from 1 to {most}", code="bad_parameter", field=name)
    return int(text)


def read_filters(body: Mapping[str, Any], direction: str) -> dict[str, Any]:
    """What a sync is asked to take: `types` of records, `ids` (ours going out, the portal's coming in), `updated_since`. Without any: everything.
    Raises VochidError naming the field."""
    _only(body, _FILTERS)
    if body.get("direction", direction) not in (direction, "both"):
        raise VochidError(f"direction is {direction} at this address", code="bad_parameter", field="direction")
    asked = {name: _flag(body, name) for name in ("sync_objects", "sync_users")}
    either = any(value is not None for value in asked.values())
    chosen = [*(OBJECTS if asked["sync_objects"] or not either else ()), *(USERS if asked["sync_users"] or not either else ())]
    filters: dict[str, Any] = {"types": _types(body.get("types"), chosen)}
    if not filters["types"]:
        raise VochidError("nothing would be synced: sync_objects or sync_users, or types of them", code="bad_parameter", field="types")
    if (ids := body.get("ids")) is not None:
        if (
            not isinstance(ids, list)
            or not 0 < len(ids) <= MAX_IDS
            or any(isinstance(one, bool) or not isinstance(one, int) or not 0 < one < 2**63 for one in ids)
        ):
            raise VochidError(f"ids is a list of 1 to {MAX_IDS} whole numbers", code="bad_parameter", field="ids")
        filters["ids"] = ids
    if (since := body.get("updated_since")) is not None:
        filters["updated_since"] = _time(since)
    return filters


def _types(value: Any, chosen: list[RecordType]) -> list[str]:
    if value is None:
        return [str(one) for one in chosen]
    named = {one.plural: one for one in RecordType} | {str(one): one for one in RecordType}
    if not isinstance(value, list) or not value or any(not isinstance(one, str) or one not in named for one in value):
        raise VochidError(f"types is a list of {', '.join(map(str, RecordType))}", code="bad_parameter", field="types")
    wanted = {named[one] for one in value}
    return [str(one) for one in chosen if one in wanted]


def _flag(body: Mapping[str, Any], name: str) -> bool | None:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "1", "false", "0"):  # as a form has it
        return str(value).lower() in ("true", "1")
    raise VochidError(f"{name} is true or false", code="bad_parameter", field=name)


def _time(value: Any) -> str:
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise VochidError("updated_since is a time with offset, like 2026-11-21T08:00:00+03:00", code="bad_parameter", field="updated_since")
    return at.isoformat()


def _only(body: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = next((name for name in body if name not in known), None)
    if unknown is not None:
        raise VochidError(f"{unknown[:80]} is not known here: {', '.join(known)}", code="bad_parameter", field=unknown[:80])


_ROOT = "/api/integration/bitrix24"
_PAGED = (("page", "from 1 on"), ("limit", "at most 500"))
_SUCCESS = {
    "type": "object", "required": ["status", "data"], "properties": {"status": {"const": "success"}, "data": {"type": "object"}},
}  # fmt: skip
_JOB = {"type": "object", "required": ["job"], "properties": {"job": {"type": "string", "format": "uuid"}}}
_PROGRESS = {
    "type": "object", "required": ["job", "state", "total", "done", "failed"],
    "properties": {
        "job": {"type": "string", "format": "uuid"}, "state": {"enum": ["queued", "running", "done", "failed"]}, "total": {"type": ["integer", "null"]},
        "done": {"type": "integer"}, "failed": {"type": "integer"},
    },
}  # fmt: skip
_STARTS = {
    "type": "object",
    "properties": {
        "sync_objects": {"type": "boolean"}, "sync_users": {"type": "boolean"}, "types": {"type": "array", "items": {"type": "string"}},
        "ids": {"type": "array", "items": {"type": "integer"}}, "updated_since": {"type": "string"}, "direction": {"type": "string"},
    },
}  # fmt: skip
_SETUP = {"type": "object", "properties": {name: {"type": ["boolean"] if name == "enabled" else ["string", "null"]} for name in _SETTABLE}}

ROUTES = (
    Route("POST", _ROOT + "/setup", setup, "Connect a Bitrix24 portal: stores its address and credentials, and tries them", body=_SETUP, gives=_SUCCESS),
    Route("GET", _ROOT + "/health", health, "Whether the sync is at work, what waits, and the last long sync", gives=_SUCCESS),
    Route("POST", _ROOT + "/sync/to", sync_to, "Sync records to the portal, in the background", body=_STARTS, statuses=(202,), gives=_JOB),
    Route(
        "POST",
        _ROOT + "/sync/from",
        sync_from,
        "Sync the portal's contacts, companies and deals to here, in the background",
        body=_STARTS,
        statuses=(202,),
        gives=_JOB,
    ),
    Route("GET", _ROOT + "/sync/{job}", job, "How far a sync is", gives=_PROGRESS),
    Route("GET", _ROOT + "/mappings", mappings, "Which record is which entity, conflicts and tasks too", query=_PAGED, gives=_SUCCESS),
    Route("GET", _ROOT + "/stats", stats, "How many are synced", gives=_SUCCESS),
    Route("DELETE", _ROOT + "/cache", clear_cache, "Read settings anew, ask for managers anew; mappings stay", statuses=(200,), gives=_SUCCESS),
    Route("GET", "/api/integration/errors", errors, "What could not be synced and is not yet, the newest first", query=_PAGED, gives=_SUCCESS),
    Route("GET", "/api/integration/errors/stats", error_stats, "How many errors are open, by type", gives=_SUCCESS),
    Route("POST", "/api/integration/errors/{id}/retry", retry_error, "Try what failed again, at once", gives=_SUCCESS),
)
