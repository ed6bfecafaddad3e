"""People as a list; they are changed on pages and by command, where links are handed over."""

from __future__ import annotations

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from admin_http.api.shapes import LIST
from daemon.model.call import iso
from daemon.model.person import Role


async def list_users(ask: Ask) -> web.StreamResponse:
    """The enterprise's people; everybody for a super-admin."""
    people = await ask.services.people.repository.list(None if ask.who.is_super else ask.who.enterprise)
    items = [
        {
            "id": one.id, "login": one.login, "name": one.name, "role": str(one.role), "enterprise": one.enterprise, "disabled": one.disabled,
            "second_factor": one.has_totp, "created_at": iso(one.created_at), "last_login_at": iso(one.last_login_at) if one.last_login_at else None,
        }
        for one in people
    ]  # fmt: skip
    return answer({"items": items, "next": None})


ROUTES = (Route("GET", "/api/users", list_users, "People who may open the admin", without_enterprise=True, needs=Role.ADMIN, gives=LIST),)
