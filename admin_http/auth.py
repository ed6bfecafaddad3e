"""Who asks: a super-admin's token, or an enterprise's. What belongs to another enterprise does not exist."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from admin_http.problems import Forbidden, Unauthorized
from admin_http.services import Services
from daemon.errors import NotFound, VochidError
from daemon.security.tokens import same

MAX_TOKEN_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Principal:
    """`enterprise` is None for a super-admin, who may see all."""

    enterprise: str | None

    @property
    def is_super(self) -> bool:
        return self.enterprise is None

    def may_see(self, enterprise: str) -> bool:
        return self.enterprise is None or self.enterprise == enterprise


NOBODY = Principal("")  # may see nothing: no enterprise has an empty number


async def find_principal(request: web.Request, services: Services) -> Principal | None:
    """Who the bearer token stands for; None without one. Raises Unauthorized for a token that opens nothing."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not scheme:
        return None
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_LENGTH:
        raise Unauthorized("the Authorization header must be `Bearer <token>`")
    if services.admin_token and same(token, services.admin_token):
        return Principal(None)
    enterprise = await services.tokens.find(token)
    if enterprise is None:
        raise Unauthorized("the token is unknown or revoked")
    return Principal(enterprise)


async def principal(request: web.Request, services: Services, *, secret_too: bool = False) -> Principal:
    """As find_principal, but somebody must be there. secret_too: the enterprise's secret in X-Enterprise-Secret will do."""
    found = await find_principal(request, services)
    if found is None and secret_too and (secret := request.headers.get("X-Enterprise-Secret")):
        owner = await services.inbound.find(secret, "secret")
        if owner is None:
            raise Unauthorized("the enterprise's secret in X-Enterprise-Secret is not known")
        found = Principal(owner.enterprise)
    if found is None:
        raise Unauthorized("a bearer token is needed")
    return found


def enterprise_of(request: web.Request, who: Principal) -> str:
    """The enterprise that a request is about: in the path, else ?enterprise=N, else the token's own."""
    number = request.match_info.get("n") or request.query.get("enterprise") or who.enterprise
    if number is None:
        raise VochidError("name the enterprise: ?enterprise=N", code="enterprise_needed", field="enterprise")
    if not who.may_see(number):
        raise NotFound(f"there is no enterprise {number}")
    return number


def must_be_super(who: Principal) -> None:
    """Raises Forbidden for everybody but a super-admin."""
    if not who.is_super:
        raise Forbidden("only a super-admin may do this")
