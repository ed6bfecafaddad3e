"""Logging in, staying in, and being thrown out."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from daemon.errors import NotFound, SettingsError, VochidError
from daemon.model.person import Person, Role, Session
from daemon.security import totp
from daemon.security.passwords import Passwords
from daemon.security.throttle import Limit, Throttle
from daemon.security.tokens import token_hash
from daemon.security.vault import Vault, VaultError
from daemon.store.audit import Actor, AuditLog
from daemon.store.people import PeopleRepository

IDLE_S = 30 * 60.0
LIVES_S = 12 * 3_600.0
LINK_LIVES_S = 24 * 3_600.0
PROOF_S = 10 * 60.0  # how long after giving the password secrets and people may be changed
SECOND_STEP_S = 300.0
DEVICE_LIVES_S = 365 * 86_400.0

# A stranger at one address runs dry long before an account does, and the devices its owner uses have a bucket of their own:
# guessing is slow, and nobody can lock somebody else out.
PER_ADDRESS = Limit(burst=10, refill_s=30)
PER_ACCOUNT = Limit(burst=60, refill_s=5)
PER_DEVICE = Limit(burst=10, refill_s=30)
PER_SECOND_FACTOR = Limit(burst=5, refill_s=30)

log = structlog.get_logger()
_LOGIN = re.compile(r"[a-z0-9._@+-]{1,100}")


class LoginRefused(VochidError):
    """Wrong, too often, or a code is wanted. `second_step` is to be sent back with the code; `wait_s`: when to try again."""

    def __init__(self, message: str, code: str, *, second_step: str | None = None, wait_s: float = 0) -> None:
        super().__init__(message, code=code)
        self.second_step = second_step
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who knocks: address, browser, and the cookie of a device on which somebody logged in before."""

    address: str
    agent: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class Entered:
    """A new session's token, and the device's cookie."""

    token: str
    device: str
    person: Person


class People:
    """Everything about people. `clock` is Unix time."""

    def __init__(self, repository: PeopleRepository, audit: AuditLog, vault: Vault, passwords: Passwords, clock: Callable[[], float] = time.time) -> None:
        self.repository = repository
        self.audit = audit
        self._vault = vault
        self._passwords = passwords
        self._clock = clock
        self._addresses, self._accounts = Throttle(PER_ADDRESS), Throttle(PER_ACCOUNT)
        self._devices, self._codes = Throttle(PER_DEVICE), Throttle(PER_SECOND_FACTOR)

    # -- the way in --------------------------------------------------------------------------------------------------------

    async def log_in(self, login: str, password: str, visitor: Visitor) -> Entered:
        """Raises LoginRefused: wrong_login, too_many_tries, code_needed."""
        login, now = login.strip().lower()[:100], self._clock()
        device = self._known_device(visitor.device, login, now)
        buckets = [(self._devices, device)] if device else [(self._addresses, visitor.address), (self._accounts, login)]
        wait_s = max(bucket.wait_s(key, now) for bucket, key in buckets)
        if wait_s > 0:
            raise LoginRefused("too many tries", "too_many_tries", wait_s=wait_s)
        for bucket, key in buckets:  # counted before the answer is known: tries at the same moment count too
            bucket.failed(key, now)
        found = await self.repository.find(login)
        person, stored, sealed = found if found is not None and not found[0].disabled else (None, None, None)
        if not await self._passwords.check(stored, password) or person is None:
            if person is not None:  # what was typed as an unknown login may be somebody's password
                log.warning("login refused", login=login, address=visitor.address)
            raise LoginRefused("the login or the password is wrong", "wrong_login")
        if sealed is not None:
            raise LoginRefused("the code of the authenticator app is needed", "code_needed", second_step=self._ticket("second step", person.id, SECOND_STEP_S))
        return await self._enter(person, visitor)

    async def give_code(self, second_step: str, code: str, visitor: Visitor) -> Entered:
        """The second step of a login. Raises LoginRefused."""
        user_id = self._ticket_owner("second step", second_step)
        if user_id is None:
            raise LoginRefused("this took too long: begin again", "begin_again")
        person, _, _ = await self.repository.get(user_id)
        if person.disabled or not await self._is_code(user_id, code):
            raise LoginRefused("the code is wrong", "wrong_code", second_step=second_step)
        return await self._enter(person, visitor)

    async def enter_cabinet(self, enterprise: str, visitor: Visitor) -> str:
        """A cabinet's session; gives its token."""
        token = secrets.token_urlsafe(32)
        await self.repository.start_session(
            token_hash(token), user_id=None, enterprise=enterprise, lives_s=LIVES_S, address=visitor.address[:100], agent=visitor.agent[:200]
        )
        return token

    async def session(self, token: str) -> Session | None:
        """Whose session this is; it counts as seen. Safe with anything a stranger sends."""
        if not 20 <= len(token) <= 100 or not token.isascii():
            return None
        return await self.repository.find_session(token_hash(token), IDLE_S, _csrf(token))

    async def log_out(self, token: str) -> None:
        await self.repository.end_session(token_hash(token))

    async def prove(self, session: Session, password: str, code: str) -> None:
        """Once more the password (and the code), before secrets or people are changed. Raises LoginRefused."""
        key, now = f"proof {session.user_id}", self._clock()
        if (wait_s := self._devices.wait_s(key, now)) > 0:
            raise LoginRefused("too many tries", "too_many_tries", wait_s=wait_s)
        self._devices.failed(key, now)
        assert session.user_id is not None
        person, stored, sealed = await self.repository.get(session.user_id)
        if not await self._passwords.check(stored, password):
            raise LoginRefused("the password is wrong", "wrong_login")
        if sealed is not None and not await self._is_code(person.id, code):
            raise LoginRefused("the code is wrong", "wrong_code")
        self._devices.forget(key)
        await self.repository.prove_session(session.id)

    # -- set-up links ------------------------------------------------------------------------------------------------------

    async def first_link(self) -> str | None:
        """The token of a link for the first person; None when somebody exists."""
        return await self._link(None) if await self.repository.nobody() else None

    async def new_link(self, person: Person, by: Actor) -> str:
        """The token of a one-time link with which a person sets a (new) password."""
        if person.disabled:
            raise VochidError(f"{person.login} is disabled", code="wrong_state")
        token = await self._link(person.id)
        await self._note(by, "set-up link made", person.login, person.enterprise)
        return token

    async def link_owner(self, token: str) -> tuple[int | None, str | None] | None:
        """(person, login) of a live link, both None for the first person; None: it is no (longer a) link."""
        return await self.repository.find_link(token_hash(token)) if len(token) <= 100 else None

    async def set_up(self, token: str, login: str, password: str, visitor: Visitor) -> Entered:
        """Uses a link up: sets the password and logs in. `login` counts for the first person only."""
        owner = await self.link_owner(token)
        if owner is None:
            raise NotFound("this link was used or has expired")
        chosen = owner[1] or check_login(login)
        if password.strip().lower() == chosen:
            raise VochidError("a password is not the login", code="weak_password", field="password")
        user_id = await self.repository.use_link(token_hash(token), chosen, await self._passwords.hash(password))
        if user_id is None:
            raise NotFound("this link was used or has expired")
        person, _, _ = await self.repository.get(user_id)
        await self._note(Actor(person.login, person.role, visitor.address), "password set by link", person.login, person.enterprise)
        return await self._enter(person, visitor)

    # -- changes -----------------------------------------------------------------------------------------------------------

    async def add(self, login: str, name: str, role: Role, enterprise: str | None, by: Actor) -> Person:
        """A new person, who needs a link. Raises VochidError naming the field."""
        if (role is Role.SUPER) != (enterprise is None) or role is Role.CABINET:
            raise SettingsError("a super-admin has no enterprise, an admin and a viewer have one", field="role")
        if len(name) > 200:
            raise SettingsError("at most 200 characters", field="name")
        user_id = await self.repository.add(check_login(login), name.strip(), role, enterprise)
        person, _, _ = await self.repository.get(user_id)
        await self._note(by, "person added", person.login, enterprise, role=str(role))
        return person

    async def set_disabled(self, person: Person, disabled: bool, by: Actor) -> None:
        """Disables a person at once, or lets them in again."""
        await self.repository.set_disabled(person.id, disabled)
        await self._note(by, "person disabled" if disabled else "person enabled", person.login, person.enterprise)

    async def set_role(self, person: Person, role: Role, by: Actor) -> None:
        """Between admin and viewer of the same enterprise."""
        if person.role is Role.SUPER or role not in (Role.ADMIN, Role.VIEWER):
            raise SettingsError("only an admin and a viewer change places", field="role")
        await self.repository.set_role(person.id, role)
        await self._note(by, "role changed", person.login, person.enterprise, was=str(person.role), role=str(role))

    async def change_password(self, session: Session, password: str, by: Actor) -> None:
        """A new password for oneself; every other session ends."""
        assert session.user_id is not None
        if password.strip().lower() == session.login:
            raise VochidError("a password is not the login", code="weak_password", field="password")
        await self.repository.set_password(session.user_id, await self._passwords.hash(password))
        await self.repository.revoke_other_sessions(session.user_id, session.id)
        await self._note(by, "password changed", session.login, session.enterprise)

    async def turn_on_totp(self, session: Session, secret: str, code: str, by: Actor) -> None:
        """Turns the second factor on, once a code shows that the app has the secret. Raises VochidError (wrong_code)."""
        assert session.user_id is not None
        step = totp.matching_step(secret, code, self._clock())
        if step is None:
            raise VochidError("the code is wrong", code="wrong_code", field="code")
        await self.repository.set_totp(session.user_id, self._vault.seal(secret, "", f"totp {session.user_id}"), step)
        await self._note(by, "second factor on", session.login, session.enterprise)

    async def turn_off_totp(self, session: Session, by: Actor) -> None:
        assert session.user_id is not None
        await self.repository.set_totp(session.user_id, None)
        await self._note(by, "second factor off", session.login, session.enterprise)

    def seal_for(self, session: Session, purpose: str, value: str) -> str:
        """A value that goes through a form and comes back unchanged, for this session only."""
        return self._vault.seal(value, "", f"{purpose} of session {session.id}")

    def opened_for(self, session: Session, purpose: str, sealed: str) -> str:
        """The opposite of seal_for. Raises VochidError for anything else."""
        try:
            return self._vault.open(sealed, "", f"{purpose} of session {session.id}")
        except VaultError:
            raise VochidError("this form is out of date: open the page again", code="begin_again") from None

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def _enter(self, person: Person, visitor: Visitor) -> Entered:
        token, now = secrets.token_urlsafe(32), self._clock()
        known = self._known_device(visitor.device, person.login, now)
        for bucket, key in ((self._devices, known), (self._addresses, visitor.address)):
            if key is not None:
                bucket.forget(key)
        await self.repository.start_session(
            token_hash(token), user_id=person.id, enterprise=None, lives_s=LIVES_S, address=visitor.address[:100], agent=visitor.agent[:200]
        )
        await self._note(Actor(person.login, person.role, visitor.address), "logged in", person.login, person.enterprise)
        device = visitor.device if known else self._vault.seal(json.dumps([secrets.token_hex(8), now + DEVICE_LIVES_S]), "", f"device {person.login}")
        return Entered(token, device, person)

    async def _is_code(self, user_id: int, code: str) -> bool:
        key, now = str(user_id), self._clock()
        if (wait_s := self._codes.wait_s(key, now)) > 0:
            raise LoginRefused("too many tries", "too_many_tries", wait_s=wait_s)
        self._codes.failed(key, now)
        _, _, sealed = await self.repository.get(user_id)
        if sealed is None:
            return False
        step = totp.matching_step(self._vault.open(sealed, "", f"totp {user_id}"), code, now)
        if step is None or not await self.repository.use_totp_step(user_id, step):
            return False
        self._codes.forget(key)
        return True

    async def _link(self, user_id: int | None) -> str:
        token = secrets.token_urlsafe(32)
        await self.repository.add_link(token_hash(token), user_id, LINK_LIVES_S)
        return token

    def _known_device(self, cookie: str, login: str, now: float) -> str | None:
        """The device's id when this login was used on it before."""
        if not 20 <= len(cookie) <= 1_000:
            return None
        try:
            device, until = json.loads(self._vault.open(cookie, "", f"device {login}"))
        except (VaultError, ValueError):
            return None
        return str(device) if until > now else None

    def _ticket(self, purpose: str, user_id: int, lives_s: float) -> str:
        return self._vault.seal(json.dumps([user_id, self._clock() + lives_s]), "", purpose)

    def _ticket_owner(self, purpose: str, ticket: str) -> int | None:
        try:
            user_id, until = json.loads(self._vault.open(ticket[:1_000], "", purpose))
        except (VaultError, ValueError):
            return None
        return int(user_id) if until > self._clock() else None

    async def _note(self, by: Actor, action: str, subject: str, enterprise: str | None, **details: Any) -> None:
        await self.audit.note(by, action, subject, enterprise=enterprise, details=details)


def check_login(login: str) -> str:
    """The login as stored. Raises SettingsError."""
    login = login.strip().lower()
    if _LOGIN.fullmatch(login) is None:
        raise SettingsError("a login has 1 to 100 letters a to z, digits and . _ @ + -", field="login")
    return login


def _csrf(token: str) -> str:
    """What forms of this session carry: made of its token, so that nothing need be stored."""
    return hmac.digest(token.encode(), b"vochid csrf", "sha256").hex()[:40]
