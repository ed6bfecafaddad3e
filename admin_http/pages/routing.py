"""One page, described once: who may open it, and what its handler gets."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import structlog
from aiohttp import web

from admin_http.auth import SAFE_METHODS, Principal, must_be_own_form, person_session
from admin_http.cookies import CABINET
from admin_http.pages.nav import menu
from admin_http.problems import status_of
from admin_http.services import Services
from admin_http.texts import LANGUAGES
from admin_http.views import Views
from admin_http.visitors import THEMES, Way, must_be_own_page, way_of
from daemon.errors import NotFound, VochidError
from daemon.model.person import Role, Session
from daemon.people.service import PROOF_S
from daemon.store.audit import Actor
from daemon.tenants.document import Enterprise

log = structlog.get_logger()


@dataclass(slots=True)
class Visit:
    """A request for a page: the person, the enterprise, and the way back to the browser."""

    request: web.Request
    services: Services
    views: Views
    way: Way
    session: Session | None
    language: str
    theme: str
    number: str = ""
    cookies: list[tuple[str, str]] = field(default_factory=list)

    @property
    def who(self) -> Principal:
        """The person's rights: `who.role.covers(Role.ADMIN)`, `who.is_super`, `who.may_see(number)`."""
        assert self.session is not None
        return Principal(self.session.enterprise, self.session.role, self.session.login or "cabinet", self.session)

    @property
    def actor(self) -> Actor:
        """Who does it, for the audit."""
        return self.who.actor(self.way)

    @property
    def enterprise(self) -> Enterprise:
        """The enterprise of a page below /e/{n} (or of the cabinet). Raises NotFound."""
        tenancy = self.services.tenants.get(self.number)
        if tenancy is None:
            raise NotFound(f"there is no enterprise {self.number}")
        return tenancy.enterprise

    @property
    def is_fragment(self) -> bool:
        """Whether htmx asks for a part of a page."""
        return "HX-Request" in self.request.headers

    @property
    def is_proved(self) -> bool:
        """Whether the password was given a short while ago: what secrets and people want. A cabinet has none: its link is its proof."""
        return self.session is not None and (self.session.proved_s < PROOF_S or self.session.role is Role.CABINET)

    def may(self, needed: str) -> bool:
        """Whether the person has this role's rights; for templates."""
        return self.session is not None and self.session.role.covers(Role(needed))

    def part(self, name: str) -> str:
        """A variable of the path."""
        return self.request.match_info[name]

    def id(self, name: str = "id") -> int:
        """A variable of the path that is a number; anything else names nothing."""
        text = self.part(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1

    def query(self, name: str) -> str | None:
        """A query parameter; empty counts as absent."""
        return self.request.query.get(name) or None

    async def form(self) -> dict[str, str]:
        """The submitted form; of a field that comes more than once the last."""
        return {name: value for name, value in (await self.request.post()).items() if isinstance(value, str)}

    async def form_lists(self) -> dict[str, list[str]]:
        """The submitted form with every value of every field."""
        data, found = await self.request.post(), {}
        for name in data:
            found[name] = [value for value in data.getall(name) if isinstance(value, str)]
        return found

    def text(self, message: str, **values: Any) -> str:
        """A text in the person's language."""
        return self.views.text(self.language, message, **values)

    def say(self, error: VochidError) -> str:
        """An error in the person's language, as far as its text is known there."""
        return self.said(str(error))

    def said(self, sentence: str) -> str:
        """What a check, an error or a reason says, in the person's language."""
        return self.views.said(self.language, sentence)

    def render(self, template: str, *, status: int = 200, **context: Any) -> web.Response:
        """The page. Every template has: visit, session, csrf, language, theme, zone, menu, number, path and what is given here."""
        return web.Response(text=self.views.render(template, self.language, {**self._base(), **context}), status=status, content_type="text/html")

    def redirect(self, path: str) -> web.Response:
        """On to another page, by htmx or by the browser."""
        if self.is_fragment:
            return web.Response(status=200, headers={"HX-Redirect": path})
        return web.Response(status=303, headers={"Location": path})

    def toast(self, response: web.Response, message: str, kind: str = "good") -> web.Response:
        """Shows a short message once the answer has arrived; `kind`: good or bad."""
        response.headers["HX-Trigger"] = json.dumps({"toast": {"text": message, "kind": kind}})
        return response

    def _base(self) -> dict[str, Any]:
        tenancy = self.services.tenants.get(self.number) if self.number else None
        return {
            "visit": self, "session": self.session, "csrf": self.session.csrf if self.session else "", "language": self.language, "theme": self.theme,
            "zone": tenancy.enterprise.timezone if tenancy else "Europe/Minsk", "number": self.number, "path": self.request.path,
            "enterprise_name": tenancy.enterprise.name if tenancy else "", "menu": menu(self.session, self.number, self.request.path),
        }  # fmt: skip


PageHandler = Callable[[Visit], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page's route. Unless `needs` says otherwise a viewer opens it and an admin changes things.

    is_open: for strangers too. from_outside: a POST that another site may send; the handler proves it by itself.
    needs_proof: the password must have been given in the last minutes.
    """

    method: str
    path: str
    handler: PageHandler
    needs: Role | None = None
    is_open: bool = False
    from_outside: bool = False
    needs_proof: bool = False

    @property
    def needed(self) -> Role:
        """The least role that may."""
        return self.needs or (Role.VIEWER if self.method in SAFE_METHODS else Role.ADMIN)


def bind_page(page: Page, services: Services, views: Views) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The aiohttp handler: the session, its rights, the enterprise, and errors as pages."""

    async def handle(request: web.Request) -> web.StreamResponse:
        visit = _visit(request, services, views)
        try:
            return await _admit(page, visit) or await page.handler(visit)
        except VochidError as error:
            return _failed(visit, error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _failed(visit, VochidError(error.reason), error.status)
        except (ConnectionResetError, TimeoutError):
            raise
        except Exception:
            log.error("page failed", method=request.method, path=page.path, exc_info=True)
            return _failed(visit, VochidError("something went wrong here; the log of vochid says what", code="internal"), 500)

    return handle


def page_for_strays(services: Services, views: Views) -> Any:
    """A middleware: a browser that opens an address which nothing has gets a page, programs get the problem."""

    @web.middleware
    async def say_so(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        response = await handler(request)
        is_stray = request.match_info.http_exception is not None and response.status == 404 and request.method == "GET"
        if not is_stray or "text/html" not in request.headers.get("Accept", "") or request.path.startswith(("/api/", "/static/")):
            return response
        visit = _visit(request, services, views)
        visit.session = await person_session(request, services)
        return _failed(visit, NotFound("there is nothing at this address"))

    return say_so


async def _admit(page: Page, visit: Visit) -> web.StreamResponse | None:
    """None lets the visit in. Raises VochidError for what may not be."""
    request, services = visit.request, visit.services
    if page.needed is Role.CABINET:
        visit.session = await _cabinet_session(request, services, visit.way)
    else:
        visit.session = await person_session(request, services)
    if request.method not in SAFE_METHODS and not page.from_outside:
        if visit.session is None or page.is_open:
            must_be_own_page(request, visit.way)
        else:
            token = request.headers.get("X-CSRF-Token") or (await visit.form()).get("csrf", "")
            must_be_own_form(request, visit.way, visit.session, token)
    if page.is_open:
        return None
    if visit.session is None:
        if page.needed is Role.CABINET:
            raise VochidError("this page is opened from RetailCRM: open it there once more", code="unauthorized")
        return visit.redirect("/login" + (f"?next={quote(request.path_qs)}" if request.method == "GET" and request.path != "/" else ""))
    number = request.match_info.get("n") or (visit.session.enterprise if page.needed is Role.CABINET else None)
    if number is not None:
        if not (visit.who.may_see(number) and services.tenants.get(number)):
            raise NotFound(f"there is no enterprise {number}")
        visit.number = number
    visit.who.must(page.needed)
    if page.needs_proof and not visit.is_proved:
        return visit.redirect(f"/prove?next={quote(_back(request))}")
    return None


def _back(request: web.Request) -> str:
    """Where a person goes on after the password: the page itself, or the one a form was on."""
    if request.method == "GET":
        return request.path_qs
    referer = urlsplit(request.headers.get("HX-Current-URL") or request.headers.get("Referer", ""))
    return str(referer.path) or "/"


async def _cabinet_session(request: web.Request, services: Services, way: Way) -> Session | None:
    token = request.cookies.get(way.cookie(CABINET)) if way.takes_cookies else None
    session = await services.people.session(token) if token else None
    return session if session is not None and session.role is Role.CABINET else None


def _visit(request: web.Request, services: Services, views: Views) -> Visit:
    language, theme = request.cookies.get("vochid_language", ""), request.cookies.get("vochid_theme", "")
    return Visit(
        request, services, views, way_of(request, services.trusted_proxies), None,
        language if language in LANGUAGES else LANGUAGES[0], theme if theme in THEMES else THEMES[0],
    )  # fmt: skip


def _failed(visit: Visit, error: VochidError, status: int | None = None) -> web.Response:
    code = status or status_of(error)
    if visit.is_fragment:
        answer = web.Response(status=200, headers={"HX-Reswap": "none"})
        return visit.toast(answer, visit.say(error), "bad")
    visit.number = visit.number if visit.session is not None and visit.number else ""
    return visit.render("error.html", status=code, code=code, detail=visit.say(error))


def safe_next(path: str | None) -> str:
    """A path of ours to go on to: never another site."""
    if not path or not path.startswith("/") or path.startswith("//") or "\\" in path or not path.isprintable() or len(path) > 500:
        return "/"
    return path
