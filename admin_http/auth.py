"""Who asks: a person by session, a program by token. What belongs to another enterprise does not exist."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from admin_http.cookies import PERSON
from admin_http.problems import Forbidden, Unauthorized
from admin_http.services import Services
from admin_http.visitors import Way, must_be_own_page, way_of
from daemon.errors import NotFound, VochidError
from daemon.model.person import Role, Session
from daemon.security.tokens import same
from daemon.store.audit import Actor

MAX_TOKEN_LENGTH = 200
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Principal:
    """`enterprise` is None for a super-admin, who may see all. `session` is a person's; None for a program."""

    enterprise: str | None
    role: Role
    name: str
    session: Session | None = None

    @property
    def is_super(self) -> bool:
        return self.role is Role.SUPER

    def may_see(self, enterprise: str) -> bool:
        return self.is_super or self.enterprise == enterprise

    def must(self, needed: Role) -> None:
        """Raises Forbidden when this role may not."""
        if not self.role.covers(needed):
            who = {Role.SUPER: "a super-admin", Role.ADMIN: "an admin"}.get(needed, f"a {needed}")
            raise Forbidden(f"only {who} may do this")

    def actor(self, way: Way) -> Actor:
        """For the audit."""
        return Actor(self.name, str(self.role), way.address)


NOBODY = Principal("", Role.CABINET, "")  # may see nothing: no enterprise has an empty number


async def find_principal(request: web.Request, services: Services) -> Principal | None:
    """Who the bearer token or the session's cookie stands for; None without either.

    Raises Unauthorized for a token that opens nothing, Forbidden for a change with a session but without its CSRF token.
    """
    if request.headers.get("Authorization"):
        return await _by_token(request, services)
    session = await person_session(request, services)
    if session is None:
        return None
    if request.method not in SAFE_METHODS:
        must_be_own_form(request, way_of(request, services.trusted_proxies), session, request.headers.get("X-CSRF-Token", ""))
    return Principal(session.enterprise, session.role, session.login, session)


async def person_session(request: web.Request, services: Services) -> Session | None:
    """The session whose cookie came along, if it came over a way that takes cookies."""
    way = way_of(request, services.trusted_proxies)
    token = request.cookies.get(way.cookie(PERSON)) if way.takes_cookies else None
    session = await services.people.session(token) if token else None
    return session if session is not None and session.user_id is not None else None


def must_be_own_form(request: web.Request, way: Way, session: Session, token: str) -> None:
    """Raises Forbidden for a change that one of our own pages did not ask for."""
    must_be_own_page(request, way)
    if not same(token, session.csrf):
        raise Forbidden("the form's token is missing or out of date: open the page again", code="csrf")


async def _by_token(request: web.Request, services: Services) -> Principal:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_LENGTH:
        raise Unauthorized("the Authorization header must be `Bearer <token>`")
    if services.admin_token and same(token, services.admin_token):
        return Principal(None, Role.SUPER, "admin token")
    enterprise = await services.tokens.find(token)
    if enterprise is None:
        raise Unauthorized("the token is unknown or revoked")
    return Principal(enterprise, Role.ADMIN, "API token")


async def principal(request: web.Request, services: Services, *, secret_too: bool = False) -> Principal:
    """As find_principal, but somebody must be there. secret_too: the enterprise's secret in X-Enterprise-Secret will do."""
    found = await find_principal(request, services)
    if found is None and secret_too and (secret := request.headers.get("X-Enterprise-Secret")):
        owner = await services.inbound.find(secret, "secret")
        if owner is None:
            raise Unauthorized("the enterprise's secret in X-Enterprise-Secret is not known")
        found = Principal(owner.enterprise, Role.ADMIN, "enterprise secret")
    if found is None:
        raise Unauthorized("a bearer token or a session is needed")
    return found


def enterprise_of(request: web.Request, who: Principal) -> str:
    """The enterprise that a request is about: in the path, else ?enterprise=N, else the token's own."""
    number = request.match_info.get("n") or request.query.get("enterprise") or who.enterprise
    if number is None:
        raise VochidError("name the enterprise: ?enterprise=N", code="enterprise_needed", field="enterprise")
    if not who.may_see(number):
        raise NotFound(f"there is no enterprise {number}")
    return number
