"""One's own account: password, second factor, sessions."""

from __future__ import annotations

import io

import segno
from aiohttp import web

from admin_http.pages.routing import Page, Visit
from daemon.errors import VochidError
from daemon.model.person import Role
from daemon.people.service import IDLE_S
from daemon.security import totp


async def show_account(visit: Visit) -> web.StreamResponse:
    return await _account(visit)


async def _account(visit: Visit, *, problem: str | None = None, field: str | None = None, status: int = 200) -> web.StreamResponse:
    session = visit.session
    assert session is not None
    assert session.user_id is not None
    person, _, _ = await visit.services.people.repository.get(session.user_id)
    sessions = await visit.services.people.repository.list_sessions(session.user_id, IDLE_S)
    return visit.render("account/account.html", status=status, person=person, sessions=sessions, problem=problem, field=field)


async def change_password(visit: Visit) -> web.StreamResponse:
    assert visit.session is not None
    try:
        await visit.services.people.change_password(visit.session, (await visit.form()).get("password", ""), visit.actor)
    except VochidError as error:
        return await _account(visit, problem=visit.say(error), field="password", status=400)
    return visit.redirect("/account")


async def show_totp(visit: Visit) -> web.StreamResponse:
    """A new secret as a QR code. It is kept nowhere but, sealed, in the form until a code has shown that the app has it."""
    return _totp_page(visit, totp.new_secret())


def _totp_page(visit: Visit, secret: str, *, problem: str | None = None, status: int = 200) -> web.StreamResponse:
    assert visit.session is not None
    sealed = visit.services.people.seal_for(visit.session, "new totp", secret)
    picture = io.BytesIO()
    segno.make(totp.uri(secret, visit.session.login, "vochid"), error="m").save(picture, kind="svg", xmldecl=False, svgns=True, scale=5, border=2, light="#fff")
    return visit.render("account/totp.html", status=status, secret=secret, sealed=sealed, qr=picture.getvalue().decode(), problem=problem)


async def turn_on_totp(visit: Visit) -> web.StreamResponse:
    assert visit.session is not None
    form, people = await visit.form(), visit.services.people
    secret = people.opened_for(visit.session, "new totp", form.get("sealed", ""))
    try:
        await people.turn_on_totp(visit.session, secret, form.get("code", ""), visit.actor)
    except VochidError as error:
        return _totp_page(visit, secret, problem=visit.say(error), status=400)
    return visit.redirect("/account")


async def turn_off_totp(visit: Visit) -> web.StreamResponse:
    assert visit.session is not None
    await visit.services.people.turn_off_totp(visit.session, visit.actor)
    return visit.redirect("/account")


async def revoke_session(visit: Visit) -> web.StreamResponse:
    assert visit.session is not None
    assert visit.session.user_id is not None
    await visit.services.people.repository.revoke_session(visit.session.user_id, visit.id())
    return visit.redirect("/account")


PAGES = (
    Page("GET", "/account", show_account),
    Page("POST", "/account/password", change_password, needs=Role.VIEWER, needs_proof=True),
    Page("GET", "/account/totp", show_totp, needs_proof=True),
    Page("POST", "/account/totp", turn_on_totp, needs=Role.VIEWER, needs_proof=True),
    Page("POST", "/account/totp/off", turn_off_totp, needs=Role.VIEWER, needs_proof=True),
    Page("POST", "/account/sessions/{id}/end", revoke_session, needs=Role.VIEWER),
)
