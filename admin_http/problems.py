"""Errors as application/problem+json: a stable `code`, one sentence of `detail`, and for settings the `field`.

What a page of ours asks by itself is answered with `said` too: the detail in the person's language. `detail` is English for everybody.
"""

from __future__ import annotations

import json
from typing import Any

import structlog
from aiohttp import web

from admin_http.texts import LANGUAGES, sentences
from daemon.errors import NotFound, SettingsError, VochidError
from daemon.originate.guard import DialRefused
from daemon.originate.service import NoLink, OverLimit
from daemon.tenants.service import PreconditionFailed

log = structlog.get_logger()

_STATUS: tuple[tuple[type[VochidError], int], ...] = (
    (NotFound, 404),
    (PreconditionFailed, 412),
    (SettingsError, 400),
    (DialRefused, 403),
    (OverLimit, 429),
    (NoLink, 503),
)
_BY_CODE = {
    "not_found": 404,
    "wrong_state": 409,
    "taken": 409,
    "wrong_role": 404,
    "unauthorized": 401,
    "forbidden": 403,
    "cross_site": 403,
    "csrf": 403,
    "too_many_tries": 429,
    "busy": 503,
    "pbx_down": 503,
    "redirect_refused": 502,
    "crm_failed": 502,
}
_HTTP_CODES = {404: "no_such_route", 405: "method_not_allowed", 413: "too_large"}


class Unauthorized(VochidError):
    """No token, or one that opens nothing."""

    code = "unauthorized"


class Forbidden(VochidError):
    """Known, but not allowed to do this."""

    code = "forbidden"


def problem(status: int, code: str, detail: str, field: str | None = None, *, language: str | None = None) -> web.Response:
    """The error as a response; `language`: of the person at the page that asked."""
    body: dict[str, Any] = {"code": code, "detail": detail, "status": status}
    if language is not None:
        body["said"] = sentences(language).say(detail)
    if field:
        body["field"] = field
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return web.Response(text=json.dumps(body, ensure_ascii=False), status=status, content_type="application/problem+json", headers=headers)


def from_error(error: VochidError, language: str | None = None) -> web.Response:
    """An expected failure as a response."""
    return problem(status_of(error), error.code, str(error), error.field, language=language)


def page_language(request: web.Request) -> str | None:
    """The language of the page that asks by itself; None for programs."""
    if not {"X-CSRF-Token", "HX-Request"} & request.headers.keys():
        return None
    chosen = request.cookies.get("vochid_language")
    return chosen if chosen in LANGUAGES else LANGUAGES[0]


def status_of(error: VochidError) -> int:
    """The HTTP status of an expected failure."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), _BY_CODE.get(error.code, 400))


@web.middleware
async def problems(request: web.Request, handler: Any) -> web.StreamResponse:
    """Turns every failure into a problem; an unexpected one is logged and told without detail."""
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except VochidError as error:
        return from_error(error, page_language(request))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return problem(error.status, _HTTP_CODES.get(error.status, "bad_request"), error.reason)
    except (ConnectionResetError, TimeoutError):
        raise
    except Exception:
        log.error("request failed", method=request.method, path=request.path, exc_info=True)
        return problem(500, "internal", "something went wrong here; the log of vochid says what", language=page_language(request))
