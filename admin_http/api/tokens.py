"""API tokens of an enterprise."""

from __future__ import annotations

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from admin_http.api.shapes import LIST
from daemon.errors import VochidError


async def list_tokens(ask: Ask) -> web.StreamResponse:
    return answer({"items": await ask.services.tokens.list(ask.enterprise), "next": None})


async def add_token(ask: Ask) -> web.StreamResponse:
    """The token is in this answer and nowhere else."""
    body = await ask.json()
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str) or not (1 <= len(name) <= 100 and name.isprintable()):
        raise VochidError("a token needs a name of 1 to 100 printable characters", code="bad_parameter", field="name")
    token_id, token = await ask.services.tokens.add(ask.enterprise, name)
    await ask.services.people.audit.note(ask.actor, "API token made", name, enterprise=ask.enterprise)
    return answer({"id": token_id, "name": name, "token": token}, 201)


async def revoke_token(ask: Ask) -> web.StreamResponse:
    await ask.services.tokens.revoke(ask.enterprise, ask.id())
    await ask.services.people.audit.note(ask.actor, "API token revoked", ask.part("id"), enterprise=ask.enterprise)
    return web.Response(status=204)


_LIST = "/api/enterprises/{n}/tokens"
_NEW = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}

ROUTES = (
    Route("GET", _LIST, list_tokens, "API tokens, without their secret", gives=LIST),
    Route("POST", _LIST, add_token, "A new API token, shown once", body=_NEW, statuses=(201,)),
    Route("DELETE", _LIST + "/{id}", revoke_token, "Revoke a token"),
)
