"""What is downloaded: calls as a table, and the bundle that goes to support."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from prometheus_client import generate_latest

from admin_http.api.calls import CALL_FILTERS, call_filter
from admin_http.api.routing import Ask, Route
from admin_http.services import Services
from admin_http.sheet import heading, rows
from daemon.delivery.letters import DeliveryFilter
from daemon.errors import NotFound
from daemon.security.redact import for_log
from daemon.store.call_query import CallFilter

MAX_ROWS = 1_000_000  # what a spreadsheet holds
CHUNK = 500


async def export_calls(ask: Ask) -> web.StreamResponse:
    """The calls of the filters, newest first, row by row."""
    return await stream_table(ask.request, ask.services, ask.enterprise, call_filter(ask))


async def stream_table(
    request: web.Request,
    services: Services,
    enterprise: str,
    asked: CallFilter,
    titles: Mapping[str, str] | None = None,
    words: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """The download; nothing of it is held in memory but a chunk."""
    tenancy = services.tenants.get(enterprise)
    if tenancy is None:
        raise NotFound(f"there is no enterprise {enterprise}")
    zone = tenancy.enterprise.timezone
    response = web.StreamResponse(
        headers={"Content-Type": "text/csv; charset=utf-8", "Content-Disposition": f'attachment; filename="calls-{enterprise}.csv"', **NO_STORE}
    )
    response.enable_compression()
    await response.prepare(request)
    await response.write(heading(titles).encode())
    chunk: list[dict[str, Any]] = []
    async for call in services.calls.each(enterprise, asked, MAX_ROWS):
        chunk.append(call)
        if len(chunk) == CHUNK:
            await services.callers.name(enterprise, chunk)
            await response.write(rows(chunk, zone, words).encode())
            chunk.clear()
    await services.callers.name(enterprise, chunk)
    await response.write(rows(chunk, zone, words).encode())
    await response.write_eof()
    return response


async def diagnostics(ask: Ask) -> web.StreamResponse:
    """A zip of what support needs: state, settings, failures, metrics. Secrets are masked, phone numbers down to their last four digits."""
    services = ask.services
    document, _ = await services.tenants.document(ask.enterprise)
    parts = {
        "status.json": await services.state(ask.enterprise),
        "settings.json": document,
        "causes.json": await services.desk.causes(ask.enterprise),
        "dead.json": await services.outbox.page(ask.enterprise, DeliveryFilter(state="dead"), limit=100),
        "errors.json": await services.calls.logs(ask.enterprise, status="error", limit=100),
        "stats.json": await services.calls.stats(ask.enterprise),
    }
    metrics = generate_latest() if ask.who.is_super else None  # they count all enterprises
    return web.Response(
        body=await asyncio.to_thread(_zipped, parts, metrics),
        content_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="vochid-{ask.enterprise}.zip"', **NO_STORE},
    )


def _zipped(parts: Mapping[str, Any], metrics: bytes | None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, value in parts.items():
            bundle.writestr(name, json.dumps(for_log(value), ensure_ascii=False, indent=1, default=str))
        if metrics is not None:
            bundle.writestr("metrics.txt", metrics)
    return out.getvalue()


NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_ONE = "/api/enterprises/{n}"

ROUTES = (
    Route(
        "GET",
        _ONE + "/calls.csv",
        export_calls,
        "Calls as a table: semicolons, UTF-8 with a byte order mark, local times",
        query=CALL_FILTERS[:-2],
        media="text/csv",
    ),
    Route("GET", _ONE + "/diagnostics.zip", diagnostics, "A zip for support: state, settings, failures; secrets and numbers masked", media="application/zip"),
)
