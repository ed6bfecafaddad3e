"""People on a real database: the way in, sessions, links, and an audit that nobody can change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from daemon.errors import NotFound, VochidError
from daemon.model.person import Person, Role, Session
from daemon.people.service import IDLE_S, PER_ADDRESS, LoginRefused, People, Visitor
from daemon.security import totp
from daemon.security.passwords import Passwords
from daemon.security.vault import Vault
from daemon.store.audit import Actor, AuditLog
from daemon.store.people import PeopleRepository
from daemon.store.pool import Database

ROOT = Actor("root", "super-admin")
HOME = Visitor("192.0.2.1", "a browser")
PASSWORD = "верный конь батарея"
NOW = 1_763_701_800.0


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Town:
    people: People
    clock: Clock
    db: Database

    async def settler(self, login: str = "anna", role: Role = Role.ADMIN, enterprise: str | None = "0367", visitor: Visitor = HOME) -> tuple[Person, str, str]:
        """(person, session token, device cookie) of somebody who has just set a password."""
        person = await self.people.add(login, "Анна", role, enterprise, ROOT)
        entered = await self.people.set_up(await self.people.new_link(person, ROOT), "", PASSWORD, visitor)
        return entered.person, entered.token, entered.device

    async def session(self, token: str) -> Session:
        found = await self.people.session(token)
        assert found is not None
        return found

    async def owner(self, statement: str) -> None:
        """Runs a statement as the tables' owner: what the daemon itself cannot do."""
        connection = await asyncpg.connect(self.db.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture
async def town(db: Database, vault: Vault) -> AsyncIterator[Town]:
    for number in ("0367", "0400"):
        async with db.tenant(number) as connection:
            await connection.execute("insert into enterprises (number, name) values ($1, 'Июнь')", number)
    passwords, clock = Passwords(), Clock()
    yield Town(People(PeopleRepository(db), AuditLog(db), vault, passwords, clock), clock, db)
    passwords.close()


async def refusal(people: People, login: str, password: str, visitor: Visitor = HOME) -> LoginRefused:
    with pytest.raises(LoginRefused) as refused:
        await people.log_in(login, password, visitor)
    return refused.value


async def test_the_first_person_comes_by_a_link_that_works_once(town: Town) -> None:
    link = await town.people.first_link()
    assert link is not None
    with pytest.raises(VochidError, match="10 to 200"):
        await town.people.set_up(link, "admin", "short", HOME)
    entered = await town.people.set_up(link, "Admin ", PASSWORD, HOME)
    assert (entered.person.login, entered.person.role, entered.person.enterprise) == ("admin", Role.SUPER, None)
    assert (await town.session(entered.token)).role is Role.SUPER
    assert await town.people.first_link() is None
    assert await town.people.link_owner(link) is None
    with pytest.raises(NotFound):
        await town.people.set_up(link, "second", PASSWORD, HOME)


async def test_of_two_who_hold_first_links_one_becomes_the_first(town: Town) -> None:
    links = [await town.people.first_link() for _ in range(2)]
    done = await asyncio.gather(*(town.people.set_up(str(link), f"admin{i}", PASSWORD, HOME) for i, link in enumerate(links)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["Entered", "NotFound"]
    assert len(await town.people.repository.list(None)) == 1


async def test_a_login_opens_with_its_password_and_nothing_else(town: Town) -> None:
    await town.settler()
    for login, password in (("anna", "wrong password"), ("nobody", PASSWORD), ("anna", ""), ("", ""), ("anna", "\ud800x")):
        assert (await refusal(town.people, login, password)).code == "wrong_login"
    entered = await town.people.log_in(" Anna", PASSWORD, HOME)
    assert (await town.session(entered.token)).login == "anna"
    for token in ("", "x" * 43, "ф" * 43, entered.token[:-1], entered.token * 9):
        assert await town.people.session(token) is None


async def test_a_stranger_is_slowed_down_and_cannot_lock_the_owner_out(town: Town) -> None:
    _, _, device = await town.settler()
    stranger = Visitor("198.51.100.9")
    for _ in range(PER_ADDRESS.burst):
        assert (await refusal(town.people, "anna", "guess", stranger)).code == "wrong_login"
    stopped = await refusal(town.people, "anna", PASSWORD, stranger)
    assert stopped.code == "too_many_tries"
    assert 0 < stopped.wait_s <= PER_ADDRESS.refill_s
    assert (await town.people.log_in("anna", PASSWORD, Visitor("192.0.2.77"))).person.login == "anna"
    for n in range(200):  # a thousand addresses dry up the account itself, and still not the devices that its owner uses
        with pytest.raises(LoginRefused):
            await town.people.log_in("anna", "guess", Visitor(f"203.0.113.{n}"))
    assert (await refusal(town.people, "anna", PASSWORD, Visitor("192.0.2.200"))).code == "too_many_tries"
    assert (await town.people.log_in("anna", PASSWORD, Visitor("192.0.2.1", device=device))).person.login == "anna"
    assert (await refusal(town.people, "anna", PASSWORD, Visitor("192.0.2.200", device="x" * 60))).code == "too_many_tries"
    town.clock.now += 3_600
    assert (await town.people.log_in("anna", PASSWORD, stranger)).person.login == "anna"


async def test_another_persons_device_is_a_strangers(town: Town) -> None:
    _, _, device = await town.settler()
    await town.settler("boris")
    for _ in range(PER_ADDRESS.burst):
        await refusal(town.people, "boris", "guess", Visitor("198.51.100.9", device=device))
    assert (await refusal(town.people, "boris", PASSWORD, Visitor("198.51.100.9", device=device))).code == "too_many_tries"


async def test_a_second_factor_is_asked_for_and_a_code_opens_once(town: Town) -> None:
    _, token, _ = await town.settler()
    session, secret = await town.session(token), totp.new_secret()
    by = Actor("anna", "admin")
    with pytest.raises(VochidError, match="code is wrong"):
        await town.people.turn_on_totp(session, secret, "000000x", by)
    await town.people.turn_on_totp(session, secret, totp.code_at(secret, int(NOW) // 30), by)
    town.clock.now += 60
    asked = await refusal(town.people, "anna", PASSWORD)
    assert asked.code == "code_needed"
    assert asked.second_step is not None
    code = totp.code_at(secret, int(town.clock.now) // 30)
    for bad_step, bad_code in ((asked.second_step, "123456"), ("v1:x:y", code), ("v1:" + asked.second_step[3:].swapcase(), code)):
        with pytest.raises(LoginRefused):
            await town.people.give_code(bad_step, bad_code, HOME)
    entered = await town.people.give_code(asked.second_step, code, HOME)
    assert (await town.session(entered.token)).has_totp
    with pytest.raises(LoginRefused, match="wrong"):
        await town.people.give_code(asked.second_step, code, HOME)
    town.clock.now += 1_000
    with pytest.raises(LoginRefused, match="too long"):
        await town.people.give_code(asked.second_step, totp.code_at(secret, int(town.clock.now) // 30), HOME)
    await town.people.turn_off_totp(session, by)
    assert (await town.people.log_in("anna", PASSWORD, HOME)).person.login == "anna"


async def test_codes_cannot_be_tried_through(town: Town) -> None:
    _, token, _ = await town.settler()
    secret = totp.new_secret()
    await town.people.turn_on_totp(await town.session(token), secret, totp.code_at(secret, int(NOW) // 30), ROOT)
    asked = await refusal(town.people, "anna", PASSWORD)
    codes = []
    for n in range(8):
        with pytest.raises(LoginRefused) as refused:
            await town.people.give_code(str(asked.second_step), f"{n:06}", HOME)
        codes.append(refused.value.code)
    assert codes == ["wrong_code"] * 5 + ["too_many_tries"] * 3


async def test_sessions_end_by_idling_by_age_by_revocation_and_by_disabling(town: Town) -> None:
    person, first, _ = await town.settler()
    second = (await town.people.log_in("anna", PASSWORD, HOME)).token
    repository = town.people.repository
    assert len(await repository.list_sessions(person.id, IDLE_S)) == 2
    await town.owner(f"update sessions set seen_at = now() - interval '{IDLE_S + 1} seconds' where id = {(await town.session(first)).id}")
    assert await town.people.session(first) is None
    third = (await town.people.log_in("anna", PASSWORD, HOME)).token
    await town.owner(f"update sessions set expires_at = now() where id = {(await town.session(third)).id}")
    assert await town.people.session(third) is None
    with pytest.raises(NotFound):
        await repository.revoke_session(person.id + 1, (await town.session(second)).id)
    await repository.revoke_session(person.id, (await town.session(second)).id)
    assert await town.people.session(second) is None
    fourth = (await town.people.log_in("anna", PASSWORD, HOME)).token
    await town.people.set_disabled(person, True, ROOT)
    assert await town.people.session(fourth) is None
    assert (await refusal(town.people, "anna", PASSWORD)).code == "wrong_login"
    await town.people.set_disabled(person, False, ROOT)
    fifth = (await town.people.log_in("anna", PASSWORD, HOME)).token
    await town.people.log_out(fifth)
    assert await town.people.session(fifth) is None


async def test_a_new_password_ends_every_other_session_and_a_link_ends_all(town: Town) -> None:
    person, first, _ = await town.settler()
    second = (await town.people.log_in("anna", PASSWORD, HOME)).token
    await town.people.change_password(await town.session(second), "другой пароль 7", ROOT)
    assert await town.people.session(first) is None
    assert await town.people.session(second) is not None
    link = await town.people.new_link(person, ROOT)
    newer = await town.people.new_link(person, ROOT)
    assert await town.people.link_owner(link) is None
    await town.people.set_up(newer, "ignored", PASSWORD, HOME)
    assert await town.people.session(second) is None
    assert (await town.people.log_in("anna", PASSWORD, HOME)).person.id == person.id


async def test_the_password_once_more_is_throttled_and_renews_the_proof(town: Town) -> None:
    _, token, _ = await town.settler()
    await town.owner("update sessions set proved_at = now() - interval '1 hour'")
    session = await town.session(token)
    assert session.proved_s > 3_000
    with pytest.raises(LoginRefused, match="password is wrong"):
        await town.people.prove(session, "guess", "")
    await town.people.prove(session, PASSWORD, "")
    assert (await town.session(token)).proved_s < 60


async def test_a_cabinets_session_is_nobodys_and_ends_with_its_enterprise(town: Town) -> None:
    token = await town.people.enter_cabinet("0367", HOME)
    session = await town.session(token)
    assert (session.role, session.enterprise, session.user_id) == (Role.CABINET, "0367", None)
    await town.people.repository.end_cabinet_sessions("0400")
    assert await town.people.session(token) is not None
    await town.people.repository.end_cabinet_sessions("0367")
    assert await town.people.session(token) is None


async def test_people_fit_their_roles(town: Town) -> None:
    for role, enterprise in ((Role.SUPER, "0367"), (Role.ADMIN, None), (Role.CABINET, "0367")):
        with pytest.raises(VochidError):
            await town.people.add("somebody", "", role, enterprise, ROOT)
    for login in ("", "Ünder", "a b", "x" * 101, "<script>"):
        with pytest.raises(VochidError) as refused:
            await town.people.add(login, "", Role.ADMIN, "0367", ROOT)
        assert refused.value.field == "login"
    with pytest.raises(NotFound):
        await town.people.add("anna", "", Role.ADMIN, "9999", ROOT)
    person, _, _ = await town.settler()
    with pytest.raises(VochidError, match="already"):
        await town.people.add("ANNA", "", Role.ADMIN, "0367", ROOT)
    await town.people.set_role(person, Role.VIEWER, ROOT)
    assert (await town.people.repository.get(person.id))[0].role is Role.VIEWER


async def test_the_daemon_itself_can_neither_read_these_tables_nor_change_the_audit(town: Town) -> None:
    await town.settler()
    for table in ("users", "sessions", "setup_links", "audit"):
        for statement in (f"select * from {table}", f"delete from {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await town.db.fetch(statement)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await town.db.fetch("update audit set who = 'somebody else'")


async def test_the_audit_is_read_by_enterprise_and_masks_secrets(town: Town) -> None:
    audit = town.people.audit
    await audit.note(ROOT, "settings changed", "0367", enterprise="0367", details={"api_key": "very secret", "name": "a → b"})
    await audit.note(ROOT, "settings changed", "0400", enterprise="0400")
    rows = await audit.page("0367")
    assert [row["subject"] for row in rows] == ["0367"]
    assert rows[0]["details"] == {"api_key": "***", "name": "a → b"}
    assert [row["subject"] for row in await audit.page(None)] == ["0400", "0367"]
    assert [row["subject"] for row in await audit.page(None, before=rows[0]["id"] + 1, limit=1)] == ["0367"]


async def test_too_many_logins_at_once_are_told_to_wait() -> None:
    passwords = Passwords()
    done = await asyncio.gather(*(passwords.check(None, PASSWORD) for _ in range(60)), return_exceptions=True)
    passwords.close()
    assert sum(one is False for one in done) == 40
    assert {one.code for one in done if isinstance(one, VochidError)} == {"busy"}
