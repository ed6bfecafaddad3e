"""People of the enterprise; of all enterprises for a super-admin."""

from __future__ import annotations

from aiohttp import web

from admin_http.pages.routing import Page, Visit
from daemon.errors import NotFound, VochidError
from daemon.model.person import Person, Role


async def show_people(visit: Visit) -> web.StreamResponse:
    return await _list(visit)


async def _list(visit: Visit, **more: object) -> web.StreamResponse:
    people = await visit.services.people.repository.list(visit.who.enterprise)
    context = {"typed": {}, "problem": None, "field": None, "link": None, **more}
    all_of_them = visit.services.tenants.all() if visit.who.is_super else {}
    enterprises = [(number, f"{number} {tenancy.enterprise.name}") for number, tenancy in sorted(all_of_them.items())]
    return visit.render("people/people.html", people=people, enterprises=enterprises, status=400 if more.get("problem") else 200, **context)


async def add_person(visit: Visit) -> web.StreamResponse:
    """A new person; the page shows the link to hand over, once."""
    form, people = await visit.form(), visit.services.people
    try:
        role = Role(form.get("role", ""))
        visit.who.must(role if role is not Role.CABINET else Role.SUPER)
        enterprise = (form.get("enterprise") or None) if visit.who.is_super else visit.who.enterprise
        person = await people.add(form.get("login", ""), form.get("name", ""), role, None if role is Role.SUPER else enterprise, visit.actor)
    except ValueError:
        return await _list(visit, problem=visit.text("Choose a role."), field="role", typed=form)
    except VochidError as error:
        return await _list(visit, problem=visit.say(error), field=error.field, typed=form)
    return await _list(visit, link=await _link(visit, person))


async def new_link(visit: Visit) -> web.StreamResponse:
    """A link for somebody who lost the password, or the phone with the codes."""
    person = await _other(visit)
    return await _list(visit, link=await _link(visit, person))


async def set_disabled(visit: Visit) -> web.StreamResponse:
    person = await _other(visit)
    await visit.services.people.set_disabled(person, not person.disabled, visit.actor)
    return visit.redirect("/people")


async def set_role(visit: Visit) -> web.StreamResponse:
    person = await _other(visit)
    await visit.services.people.set_role(person, Role.VIEWER if person.role is Role.ADMIN else Role.ADMIN, visit.actor)
    return visit.redirect("/people")


async def _link(visit: Visit, person: Person) -> dict[str, str]:
    token = await visit.services.people.new_link(person, visit.actor)
    return {"login": person.login, "url": f"{visit.way.origin}/setup/{token}"}


async def _other(visit: Visit) -> Person:
    """The person of the path, if it is one of ours and not oneself. Raises NotFound."""
    person, _, _ = await visit.services.people.repository.get(visit.id())
    if not visit.who.is_super and (person.enterprise is None or not visit.who.may_see(person.enterprise)):
        raise NotFound("there is no such person")
    assert visit.session is not None
    if person.id == visit.session.user_id:
        raise VochidError("this is your own account: change it on its page", code="wrong_state")
    return person


PAGES = (
    Page("GET", "/people", show_people, needs=Role.ADMIN),
    Page("POST", "/people", add_person, needs_proof=True),
    Page("POST", "/people/{id}/link", new_link, needs_proof=True),
    Page("POST", "/people/{id}/disabled", set_disabled, needs_proof=True),
    Page("POST", "/people/{id}/role", set_role, needs_proof=True),
)
