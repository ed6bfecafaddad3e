"""Two aiohttp applications: the API for people and programs, and the operator's own listener."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from admin_http import bitrix24, webhooks
from admin_http.api import (
    amocrm,
    bitrix24_sync,
    calls,
    clicks,
    config_cache,
    deliveries,
    enterprises,
    erasure,
    exports,
    integrations,
    missed,
    overview,
    recordings,
    records,
    redirect,
    retailcrm,
    status,
    support,
    tickets,
    tokens,
    users,
)
from admin_http.api.openapi import describe
from admin_http.api.routing import Route, answer, bind
from admin_http.attachments import serve_attachment
from admin_http.pages import static
from admin_http.pages.registry import PAGES
from admin_http.pages.routing import bind_page, page_for_strays
from admin_http.problems import problems
from admin_http.recordings import serve_recording
from admin_http.services import Services
from admin_http.views import Views
from daemon.telemetry import metrics

MAX_BODY_BYTES = 2 * 1024 * 1024
_MODULES = (
    enterprises,
    calls,
    missed,
    clicks,
    redirect,
    integrations,
    retailcrm,
    recordings,
    erasure,
    config_cache,
    deliveries,
    exports,
    overview,
    tokens,
    tickets,
    records,
    support,
    status,
    users,
    webhooks,
    amocrm,
    bitrix24,
    bitrix24_sync,
)
ROUTES: tuple[Route, ...] = tuple(route for module in _MODULES for route in module.ROUTES)

# Pages load from here and nothing else; no script or style stands in a page itself.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; media-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def make_admin(services: Services) -> web.Application:
    """The API and the pages."""
    views = Views()
    application = web.Application(middlewares=[_guarded, page_for_strays(services, views), problems], client_max_size=MAX_BODY_BYTES)
    for route in ROUTES:
        for path in route.paths:
            application.router.add_route(route.method, path, bind(route, services))
    description = describe(ROUTES)

    async def openapi(_: web.Request) -> web.Response:
        return answer(description)

    async def health(request: web.Request) -> web.Response:
        return await status.health(request, services)

    async def download(request: web.Request) -> web.StreamResponse:
        return await serve_recording(request, services.recordings)

    async def fetch_attachment(request: web.Request) -> web.StreamResponse:
        return await serve_attachment(request, services.attachments)

    application.router.add_get("/api/openapi.json", openapi)
    application.router.add_get("/health", health)
    application.router.add_get(retailcrm.LOGO_PATH, retailcrm.logo)
    application.router.add_get("/recordings/{signed}", download)
    application.router.add_get("/attachments/{signed}", fetch_attachment)
    application.router.add_get("/static/{name:.+}", static.serve)
    for page in PAGES:
        application.router.add_route(page.method, page.path, bind_page(page, services, views))
    return application


def make_operator(services: Services) -> web.Application:
    """/livez, /readyz and /metrics: for systemd, balancers and Prometheus, on a listener that is not for the world."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        ready = await services.is_ready()
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", show_metrics)
    return application


@web.middleware
async def _guarded(request: web.Request, handler: Any) -> web.StreamResponse:
    """Counts requests by route, never by address, and sets the headers that every answer has."""
    response: web.StreamResponse = await handler(request)
    resource = request.match_info.route.resource
    metrics.HTTP.labels(resource.canonical if resource else "none", str(response.status)).inc()
    if not response.prepared:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if response.content_type == "text/html":
            response.headers["Content-Security-Policy"] = _PAGE_POLICY
    return response
