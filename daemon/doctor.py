"""`vochid doctor`: looks at everything the daemon depends on, with a second opinion where one is to be had."""

from __future__ import annotations

import asyncio
import contextlib
import time
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from daemon.ami.actions import ListCommands, Ping
from daemon.ami.link import Link, LinkDown, LinkState, LinkTarget
from daemon.ami.wire import Frame, Skipped
from daemon.asterisk.audit import DEFAULT_USERNAMES, check_asterisk_conf
from daemon.checkup import check_enterprise, check_files
from daemon.compiled import runs_compiled
from daemon.errors import NotFound, VochidError
from daemon.model.delivery import Check
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.settings import Listen, Settings
from daemon.store.migrate import pending
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from daemon.tenants.document import Pbx
from daemon.wiring.crm import Crm, GuardedSessions
from daemon.wiring.resources import open_database, open_tenants, open_vault

LOGIN_DEADLINE_S = 12.0
BOOTED_DEADLINE_S = 3.0
FASTAGI_DEADLINE_S = 3.0
SECOND_OPINION_S = 5.0  # for the login, and for one answer
MAX_CLOCK_OFFSET_S = 2.0
NEEDED_ACTIONS = {"Originate": "write=originate", "CoreShowChannels": "write=reporting", "CoreStatus": "write=reporting", "DeviceStateList": "write=reporting"}


async def examine(settings: Settings, only: str | None, asterisk_conf: Path | None) -> AsyncIterator[Check]:
    """All checks in order, each as soon as it is known. One that fails does not stop the others, where they can go on."""
    usernames: list[str] = []
    async for check in _check_service(settings, only, usernames):
        yield check
    if asterisk_conf is not None:
        for check in check_asterisk_conf(asterisk_conf, tuple(usernames) or DEFAULT_USERNAMES):
            yield check


async def _check_service(settings: Settings, only: str | None, usernames: list[str]) -> AsyncIterator[Check]:
    """Everything but the PBX's files; `usernames` is filled with the AMI users of the PBXs that are looked at."""
    yield Check("call model", True, "compiled" if runs_compiled() else "not compiled: it works, slower; `make setup` compiles it when there is a C compiler")
    try:
        vault = open_vault(settings)
        yield check_files(settings)
    except VochidError as error:
        yield Check("keys", False, str(error))
        return
    try:
        async with open_database(settings, own=False, apply=False) as db:
            async for check in _check_database(settings, db):
                yield check
            tenants = open_tenants(settings, db, vault)
            await tenants.load()
            if only is not None and tenants.get(only) is None:
                raise NotFound(f"there is no enterprise {only}")
            yield await _check_secrets(db, vault)
            chosen = [tenancy.enterprise for number, tenancy in tenants.all().items() if only in (None, number)]
            usernames += sorted({pbx.username for enterprise in chosen for pbx in enterprise.pbxs})
            async for check in _check_tenants(settings, db, vault, tenants, only):
                yield check
    except (VochidError, OSError) as error:
        yield Check("database", False, str(error))


async def _check_database(settings: Settings, db: Database) -> AsyncIterator[Check]:
    version = await db.fetchval("show server_version")
    yield Check("database", True, f"PostgreSQL {version}, {'as set' if settings.database_url else 'embedded'}")
    if settings.database_url is not None:
        yield await _check_pooler(db)
    async with db.tenant("") as connection:
        missing = await pending(connection)
    yield await check_fastagi(settings.fastagi)
    yield Check("schema", missing == 0, f"{missing} migrations to apply: run `vochid migrate`" if missing else "up to date")


async def _check_secrets(db: Database, vault: Vault) -> Check:
    """Whether every secret that is sealed here can be opened: a backup that was restored without its keys, or a key that was taken away."""
    rows = await db.fetch("select * from sealed_texts()")
    lost = sorted({f"enterprise {row['owner']}" if row["place"] != "second factor" else row["owner"] for row in rows if not vault.knows(row["sealed"])})
    old = sum(not vault.is_newest(row["sealed"]) for row in rows)
    named = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    detail = f"sealed with a key that is not here: of {named}. Put the former key behind the new one in VOCHID_SECRET_KEYS, or enter the secrets anew"
    return Check(
        "secrets", not lost, detail if lost else f"{len(rows)} can be opened" + (f", {old} of them with an older key only: `vochid keys rotate`" if old else "")
    )


async def check_fastagi(listen: Listen) -> Check:
    """Whether something that speaks FastAGI answers where the PBXs are to ask: a question of no enterprise is told `failure`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    try:
        async with asyncio.timeout(FASTAGI_DEADLINE_S):
            reader, writer = await asyncio.open_connection(host, listen.port)
            writer.write(b"agi_network: yes\nagi_network_script: doctor\n\n")
            said = await reader.readline()
            writer.close()
    except (OSError, TimeoutError) as error:
        return Check("fastagi", False, f"nobody answers at {listen}: {error or 'no answer in time'}; is vochid running?")
    good = said == b"failure\n"
    return Check("fastagi", good, str(listen) if good else f"something else than vochid listens at {listen}: stop it, or set VOCHID_FASTAGI to another port")


async def _check_pooler(db: Database) -> Check:
    """A transaction pooler loses LISTEN and session settings: two statements outside a transaction must meet the same backend."""
    connection = await db.listen()
    try:
        pids = {await connection.fetchval("select pg_backend_pid()") for _ in range(5)}
        await connection.execute("set application_name = 'vochid doctor'")
        kept = await connection.fetchval("show application_name") == "vochid doctor"
    finally:
        await connection.close()
    good = len(pids) == 1 and kept
    return Check("direct connection", good, "" if good else "VOCHID_DATABASE_URL leads to a transaction pooler: name the server itself")


async def _check_tenants(settings: Settings, db: Database, vault: Any, tenants: Any, only: str | None) -> AsyncIterator[Check]:
    sessions = GuardedSessions(EgressPolicy(settings.networks("egress_allow")))
    from adapters.registry import adapters

    crm = Crm(tenants, adapters(), sessions, db, vault)
    try:
        for number, tenancy in tenants.all().items():
            if only not in (None, number):
                continue
            for problem in tenancy.problems:
                yield Check(f"{number} settings", False, problem)
            for check in check_enterprise(settings, tenancy):
                yield check
            for pbx in tenancy.enterprise.pbxs:
                async for check in check_pbx(pbx):
                    yield Check(f"{number} pbx {pbx.name} {check.name}", check.ok, check.detail)
            for name in tenancy.integrations:
                for check in await crm.check(number, name, None):
                    yield Check(f"{number} {name} {check.name}", check.ok, check.detail + ("" if check.ok else _where(name, check.field)))
    finally:
        await sessions.close()


def _where(integration: str, field: str | None) -> str:
    return f": look at {field or 'its settings'} on the card of {integration} (integrations.{integration}{'.' + field if field else ''} in the document)"


class _Listener:
    """Notes what a link hears."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.booted = asyncio.Event()

    def on_ready(self, link: Link) -> None:
        self.ready.set()

    def on_event(self, frame: Frame, at: float) -> None:
        if frame.event == "FullyBooted":
            self.booted.set()

    def on_unseen(self, skipped: Skipped) -> None: ...

    def on_down(self, reason: str) -> None: ...


async def check_pbx(pbx: Pbx) -> AsyncIterator[Check]:
    """Login, rights, event classes and clock by our own client; the login once more by panoramisk."""
    if pbx.secret is None:
        yield Check("login", False, "no secret is set")
        return
    listener, supervisor = _Listener(), Supervisor("doctor")
    link = Link(
        pbx.name, LinkTarget(pbx.host, pbx.port, pbx.username, pbx.secret.get_secret_value(), pbx.tls, pbx.tls_fingerprint), listener, asyncio.Semaphore(1)
    )
    supervisor.serve("link", link.run)
    try:
        logged_in = await _logged_in(link, listener)
        yield Check("login", logged_in, f"AMI {link.status.version}" if logged_in else _why_not(pbx, link))
        if logged_in:
            async for check in _check_rights(link, listener):
                yield check
    except LinkDown as error:
        yield Check("connection", False, str(error))
    finally:
        await supervisor.stop()
    if logged_in and not pbx.tls:
        yield await second_opinion(pbx)


def _why_not(pbx: Pbx, link: Link) -> str:
    advice = {
        LinkState.REFUSED: "compare user and secret with manager.conf, and its permit with this machine's address; then `manager reload`",
        LinkState.IN_USE: "another client has this name: stop it, or give vochid a manager user of its own",
    }
    mend = advice.get(
        link.status.state, "is Asterisk running, manager.conf enabled and bound to an address that is reached from here, the port open in the firewall?"
    )
    return f"{pbx.host}:{pbx.port}: {link.status.reason or 'no answer'}: {mend}"


async def _logged_in(link: Link, listener: _Listener) -> bool:
    deadline = time.monotonic() + LOGIN_DEADLINE_S
    while time.monotonic() < deadline:
        if listener.ready.is_set():
            return True
        if link.status.state in (LinkState.REFUSED, LinkState.IN_USE, LinkState.WAITING):
            return False
        await asyncio.sleep(0.05)
    return False


async def _check_rights(link: Link, listener: _Listener) -> AsyncIterator[Check]:
    listed = await link.request(ListCommands())
    allowed = {key for key, _ in listed.response.items()}
    missing = {right for action, right in NEEDED_ACTIONS.items() if action.lower() not in allowed}
    yield Check(
        "rights", not missing, f"missing: {', '.join(sorted(missing))}: add it to the manager user and `manager reload`" if missing else "originate, reporting"
    )
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(listener.booted.wait(), BOOTED_DEADLINE_S)
    booted = listener.booted.is_set()
    yield Check("events", booted, "" if booted else "FullyBooted did not come: read=system,call,agent,dialplan is needed")
    before = time.time()
    pong = await link.request(Ping())
    stamp = pong.response.get("Timestamp")
    if stamp is not None:
        after = time.time()
        offset_s, doubt_s = float(stamp) - (before + after) / 2, (after - before) / 2  # its clock was looked at on the way, nobody knows when
        yield Check(
            "clock", good := abs(offset_s) <= MAX_CLOCK_OFFSET_S + doubt_s, f"{offset_s:+.3f} s" + ("" if good else ": set both machines' clocks by NTP")
        )


async def second_opinion(pbx: Pbx) -> Check:
    """The same login by panoramisk, a client that shares no line with ours."""
    assert pbx.secret is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from panoramisk import Manager

        manager = Manager(
            loop=asyncio.get_running_loop(), host=pbx.host, port=pbx.port, username=pbx.username, secret=pbx.secret.get_secret_value(), ping_delay=60
        )
        try:
            await asyncio.wait_for(manager.connect(), SECOND_OPINION_S)
            answer = await asyncio.wait_for(manager.send_action({"Action": "Ping"}), SECOND_OPINION_S)
            good = answer.success or answer.response == "Success"
            return Check("second opinion", good, "panoramisk logs in too" if good else "panoramisk is refused")
        except (OSError, TimeoutError, AttributeError) as error:
            return Check("second opinion", False, f"panoramisk cannot log in: {type(error).__name__}")
        finally:
            manager.close()
