"""People who may open the admin."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from daemon.commands.common import open_house, print_table, run_work
from daemon.errors import NotFound
from daemon.model.person import Person, Role
from daemon.people.service import People
from daemon.settings import Settings
from daemon.store.audit import Actor

commands = typer.Typer(no_args_is_help=True, help="People who may open the admin.")


@asynccontextmanager
async def _people(settings: Settings) -> AsyncIterator[People]:
    from daemon.security.passwords import Passwords
    from daemon.store.audit import AuditLog
    from daemon.store.people import PeopleRepository
    from daemon.wiring.resources import open_vault

    async with open_house(settings) as (_, db):
        passwords = Passwords()
        try:
            yield People(PeopleRepository(db), AuditLog(db), open_vault(settings), passwords)
        finally:
            passwords.close()


async def _named(people: People, login: str) -> Person:
    found = await people.repository.find(login.strip().lower())
    if found is None:
        raise NotFound(f"there is nobody with the login {login}: `vochid user list` shows who is")
    return found[0]


def acting() -> Actor:
    """Who runs a command, for the audit."""
    try:
        return Actor(f"command by {getpass.getuser()}", "super-admin")
    except (KeyError, OSError):  # a user without a name
        return Actor("command", "super-admin")


@commands.command("add")
def user_add(
    login: str,
    enterprise: Annotated[str | None, typer.Option("--enterprise", help="Whose; nobody's: a super-admin.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="admin (default) or viewer of an enterprise, super-admin without one.")] = None,
    name: Annotated[str, typer.Option("--name", help="As shown.")] = "",
) -> None:
    """A new person; prints a one-time link with which they choose a password."""
    roles = [str(one) for one in (Role.SUPER, Role.ADMIN, Role.VIEWER)]
    if role is not None and role not in roles:
        raise typer.BadParameter(f"one of {', '.join(roles)}", param_hint="--role")
    chosen = Role(role) if role else Role.SUPER if enterprise is None else Role.ADMIN

    async def work(settings: Settings) -> str:
        async with _people(settings) as people:
            person = await people.add(login, name, chosen, enterprise, acting())
            return f"{settings.base_url}/setup/{await people.new_link(person, acting())}"

    print(run_work(work))


@commands.command("list")
def user_list() -> None:
    """Everybody."""

    async def work(settings: Settings) -> list[Person]:
        async with _people(settings) as people:
            return await people.repository.list(None)

    rows = [
        (p.login, p.name, str(p.role), p.enterprise or "", _state(p), "2FA" if p.has_totp else "")
        for p in run_work(work)
    ]  # fmt: skip
    print_table(("login", "name", "role", "enterprise", "state", "second factor"), rows)


def _state(person: Person) -> str:
    if person.disabled:
        return "disabled"
    return "active" if person.has_password else "no password yet"


@commands.command("disable")
def user_disable(login: str) -> None:
    """Shuts a person out; their sessions end at once."""
    _set_disabled(login, True)


@commands.command("enable")
def user_enable(login: str) -> None:
    """The opposite of disable."""
    _set_disabled(login, False)


def _set_disabled(login: str, disabled: bool) -> None:
    async def work(settings: Settings) -> None:
        async with _people(settings) as people:
            await people.set_disabled(await _named(people, login), disabled, acting())

    run_work(work)
    print(f"{login}: {'disabled' if disabled else 'enabled'}")


@commands.command("link")
def user_link(login: str) -> None:
    """A new one-time link for who lost the password or the second factor; the old password holds until it is used."""

    async def work(settings: Settings) -> str:
        async with _people(settings) as people:
            return f"{settings.base_url}/setup/{await people.new_link(await _named(people, login), acting())}"

    print(run_work(work))
