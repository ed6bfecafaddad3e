"""The way in and out: login, second factor, set-up link, the password once more, language and theme."""

from __future__ import annotations

from aiohttp import web

from admin_http.cookies import PERSON, drop_cookie, put_entry
from admin_http.pages.routing import Page, Visit, safe_next
from admin_http.texts import LANGUAGES
from admin_http.visitors import THEMES, visitor_of
from daemon.errors import NotFound, VochidError
from daemon.model.person import Role
from daemon.people.service import LoginRefused

YEAR_S = 365 * 86_400


async def home(visit: Visit) -> web.StreamResponse:
    """GET /: to where this person works."""
    return visit.redirect("/enterprises" if visit.who.is_super else f"/e/{visit.who.enterprise}")


async def show_login(visit: Visit) -> web.StreamResponse:
    if visit.session is not None:
        return visit.redirect(safe_next(visit.query("next")))
    return await _login_page(visit, next=safe_next(visit.query("next")))


async def log_in(visit: Visit) -> web.StreamResponse:
    """Login and password, or the code that was asked for then."""
    form = await visit.form()
    onward = safe_next(form.get("next"))
    if not visit.way.takes_cookies:
        return await _login_page(visit, status=400, next=onward)
    visitor, people = visitor_of(visit.request, visit.way), visit.services.people
    try:
        if form.get("second_step"):
            entered = await people.give_code(form["second_step"], form.get("code", ""), visitor)
        else:
            entered = await people.log_in(form.get("login", ""), form.get("password", ""), visitor)
    except LoginRefused as refused:
        status = {"too_many_tries": 429, "code_needed": 200}.get(refused.code, 401)
        problem = None if refused.code == "code_needed" else visit.say(refused)
        if refused.wait_s:
            problem = visit.text("Too many tries. Try again in %(seconds)s s.", seconds=int(refused.wait_s) + 1)
        return await _login_page(visit, status=status, next=onward, problem=problem, second_step=refused.second_step, login=form.get("login", "")[:100])
    await _end_current(visit)
    response = visit.redirect(onward)
    put_entry(response, visit.way, entered)
    return response


async def log_out(visit: Visit) -> web.StreamResponse:
    await _end_current(visit)
    response = visit.redirect("/login")
    drop_cookie(response, visit.way, PERSON)
    return response


async def _end_current(visit: Visit) -> None:
    token = visit.request.cookies.get(visit.way.cookie(PERSON))
    if token and len(token) <= 100:
        await visit.services.people.log_out(token)


async def _login_page(
    visit: Visit, *, next: str, status: int = 200, problem: str | None = None, second_step: str | None = None, login: str = ""
) -> web.StreamResponse:
    nobody = await visit.services.people.repository.nobody()
    return visit.render(
        "entry/login.html", status=status, next=next, problem=problem, second_step=second_step, login=login, nobody=nobody, way=visit.way,
        base_url=visit.services.base_url,
    )  # fmt: skip


async def show_setup(visit: Visit) -> web.StreamResponse:
    owner = await visit.services.people.link_owner(visit.part("token"))
    if owner is None:
        raise NotFound("this link was used or has expired")
    return visit.render("entry/setup.html", login=owner[1], typed="", problem=None, field=None, way=visit.way)


async def set_up(visit: Visit) -> web.StreamResponse:
    """Sets the password and logs in."""
    people, form = visit.services.people, await visit.form()
    owner = await people.link_owner(visit.part("token"))
    if owner is None:
        raise NotFound("this link was used or has expired")
    typed = form.get("login", "")[:100]
    try:
        if not visit.way.takes_cookies:
            raise VochidError("open this page over https: a password is not sent in the clear")
        entered = await people.set_up(visit.part("token"), typed, form.get("password", ""), visitor_of(visit.request, visit.way))
    except NotFound:
        raise
    except VochidError as error:
        return visit.render("entry/setup.html", status=400, login=owner[1], typed=typed, problem=visit.say(error), field=error.field, way=visit.way)
    response = visit.redirect("/")
    put_entry(response, visit.way, entered)
    return response


async def show_prove(visit: Visit) -> web.StreamResponse:
    assert visit.session is not None
    return visit.render("entry/prove.html", next=safe_next(visit.query("next")), problem=None)


async def prove(visit: Visit) -> web.StreamResponse:
    """The password once more."""
    assert visit.session is not None
    form = await visit.form()
    try:
        await visit.services.people.prove(visit.session, form.get("password", ""), form.get("code", ""))
    except LoginRefused as refused:
        return visit.render("entry/prove.html", status=401, next=safe_next(form.get("next")), problem=visit.say(refused))
    return visit.redirect(safe_next(form.get("next")))


async def prefer(visit: Visit) -> web.StreamResponse:
    """Language and theme: kept in this browser, before anybody has logged in too."""
    form = await visit.form()
    response = visit.redirect(safe_next(form.get("next")))
    for name, options in (("language", LANGUAGES), ("theme", THEMES)):
        if form.get(name) in options:
            response.set_cookie(f"vochid_{name}", form[name], max_age=YEAR_S, path="/", httponly=True, secure=visit.way.is_secure, samesite="Lax")
    return response


PAGES = (
    Page("GET", "/", home),
    Page("GET", "/login", show_login, is_open=True),
    Page("POST", "/login", log_in, is_open=True),
    Page("POST", "/logout", log_out, is_open=True),
    Page("GET", "/setup/{token}", show_setup, is_open=True),
    Page("POST", "/setup/{token}", set_up, is_open=True),
    Page("GET", "/prove", show_prove),
    Page("POST", "/prove", prove, needs=Role.VIEWER),
    Page("POST", "/preferences", prefer, is_open=True),
)
