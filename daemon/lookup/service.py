"""Answers `who should take this call?` within a hard budget, whatever the CRMs do. Thin shell over decision.py and cache.py.

Sources are asked in their order. One that does not answer within its share of the budget is not waited for any longer before
the next is asked, but its answer still counts when it comes in time; a late one fills the cache for the next call.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from daemon.calls.view import PbxView
from daemon.delivery.health import Breaker, Health
from daemon.lookup.cache import Cache
from daemon.lookup.customer import NoCustomer, customer_number
from daemon.lookup.decision import Choice, Decision, Said, Status, choose, verdict
from daemon.lookup.ports import Journal, Presence, Source, SourceFailed, Sources, UserStatuses
from daemon.lookup.shared import Shared
from daemon.model.crm import Responsible, UserStatus
from daemon.model.device import DeviceState
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics
from daemon.tenants.document import Enterprise
from daemon.tenants.service import Tenants

BUDGET_S = 0.6  # of the 800 ms that the dialplan waits; the rest is for setting three variables and for the road
STATUS_BUDGET_S = 0.1  # kept back for reading what the manager set in the CRM
PRESENCE_BUDGET_S = 0.05  # of that, for what another daemon knows of the phones
PRESENCE_S = 0.2  # so long it is waited for, while there is time
STATUS_FRESH_S = 1.0  # so late a status counts when the other daemon's message of it got lost
FLIGHT_DEADLINE_S = 3.0  # a question goes on this long: its answer is kept although nobody waits any more
MAX_FLIGHTS = 200  # per source
MAX_RETURNED = 20_000  # calls whose answers are remembered

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Question:
    """`channel` and `uniqueid` name the call on the PBX, or are empty. `via` says who asks and `line` what the customer dialled, for the log."""

    enterprise: str
    phone: str
    channel: str = ""
    uniqueid: str = ""
    via: str = ""
    name_only: bool = False
    line: str = ""


@dataclass
class _Line:
    """One source of one enterprise: its breaker, and what is on its way to it."""

    health: Health = field(default_factory=Health)
    flights: dict[str, asyncio.Task[Said]] = field(default_factory=dict)
    gate: asyncio.Semaphore | None = None


class Lookup:
    """One for all enterprises."""

    def __init__(self, tenants: Tenants, sources: Sources, presence: Presence, statuses: UserStatuses, journal: Journal) -> None:
        self._tenants = tenants
        self._sources = sources
        self._presence = presence
        self._journal = journal
        self._cache: Cache[Responsible] = Cache()
        self._lines: dict[tuple[str, str], _Line] = {}
        self._returned: OrderedDict[tuple[str, str], set[str]] = OrderedDict()
        self._views: dict[str, tuple[Enterprise, list[PbxView]]] = {}
        self._supervisor = Supervisor("lookup")
        self._statuses: Shared[tuple[str, str], Mapping[str, UserStatus]] = Shared(lambda key: statuses.by_user(*key), self._supervisor, STATUS_FRESH_S)

    async def ask(self, question: Question) -> Decision:
        """The answer, in at most BUDGET_S, never an exception: whatever goes wrong, the call goes on."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(BUDGET_S):
                decision = await self._decide(question, started + BUDGET_S - STATUS_BUDGET_S)
        except TimeoutError:
            decision = Decision(Status.TIMEOUT, reason="no answer within the budget")
        except Exception as error:  # a bug here must not cost a call
            log.error("lookup failed, the call goes on", enterprise=question.enterprise, exc_info=True)
            decision = Decision(Status.ERROR, reason=f"internal: {type(error).__name__}")
        asyncio.get_running_loop().call_soon(self._write_down, question, decision, time.monotonic() - started)  # after the answer has left
        return decision

    def cache_counts(self, enterprise: str | None) -> tuple[int, int, int]:
        """Entries, hits and misses of what sources said; of one enterprise, or of all."""
        return self._cache.counts(enterprise)

    def known_names(self, enterprise: str, numbers: Iterable[str]) -> dict[str, str]:
        """What CRMs called these E.164 numbers when they were asked last, as far as it is kept; nobody is asked."""
        now, sources, found = time.monotonic(), self._sources.sources(enterprise), {}
        for number in numbers:
            for source in sources:
                known = self._cache.peek((enterprise, source.name, number), now)
                if known is not None and known.customer_name:
                    found[number] = known.customer_name
                    break
        return found

    def settings_changed(self, enterprises: set[str]) -> None:
        """Answers, breakers and patterns of these enterprises are read anew."""
        self._cache.forget(enterprises)
        for key in [key for key in self._lines if key[0] in enterprises]:
            del self._lines[key]
        for number in enterprises:
            self._views.pop(number, None)

    def forget(self, enterprise: str, source: str, numbers: Sequence[str] | None) -> None:
        """What `source` said of these E.164 numbers, or of all, is asked anew: the CRM tells that it changed."""
        self._cache.drop(enterprise, source, numbers)

    def status_changed(self, enterprise: str, integration: str) -> None:
        """A user has set another status."""
        self._statuses.forget((enterprise, integration))

    async def stop(self) -> None:
        await self._supervisor.stop()

    # -- one question ------------------------------------------------------------------------------------------------------

    async def _decide(self, question: Question, deadline: float) -> Decision:
        tenancy = self._tenants.get(question.enterprise)
        if tenancy is None:
            return Decision(Status.ERROR, reason="there is no such enterprise")
        enterprise = tenancy.enterprise
        rules = enterprise.smart_redirect
        if enterprise.paused or rules.mode == "off":
            return Decision(Status.DISABLED, reason="the enterprise is paused" if enterprise.paused else "smart redirect is off")
        views = self._views_of(enterprise)
        try:
            number = customer_number(question.phone, views, enterprise.country)
        except NoCustomer as why:
            return Decision(Status.UNKNOWN, reason=str(why))
        sources = self._sources.sources(enterprise.number)
        only_name = question.name_only or rules.mode == "name"
        said = await self._ask_in_order(enterprise, sources, number, deadline, views, only_name)
        choice = choose(said, lambda source, known: _extension_of(sources, views, source, known))
        if only_name:
            return _named(choice, any(each.known for each in said))
        return await self._judge(question, choice, sources, deadline + PRESENCE_BUDGET_S)

    async def _ask_in_order(
        self, enterprise: Enterprise, sources: Sequence[Source], number: str, deadline: float, views: Sequence[PbxView], only_name: bool
    ) -> list[Said]:
        """What the sources said until `deadline`; those after the one that settles the question are not asked."""
        share_s = max(0.0, deadline - time.monotonic()) / max(1, len(sources))
        waiting: list[tuple[Source, asyncio.Task[Said] | Said]] = []
        for source in sources:
            asked = self._ask_one(enterprise, source, number)
            waiting.append((source, asked))
            if isinstance(asked, asyncio.Task):
                await asyncio.wait({asked}, timeout=min(share_s, max(0.0, deadline - time.monotonic())))
            said = _now(source, asked)
            if said.known is not None and (bool(said.known.customer_name) if only_name else _extension_of(sources, views, source.name, said.known) is not None):
                break
        flying = {asked for _, asked in waiting if isinstance(asked, asyncio.Task) and not asked.done()}
        if flying:
            await asyncio.wait(flying, timeout=max(0.0, deadline - time.monotonic()))
        return [_now(source, asked) for source, asked in waiting]

    def _ask_one(self, enterprise: Enterprise, source: Source, number: str) -> asyncio.Task[Said] | Said:
        """From the cache where it can be; else one question per number, shared by all who ask meanwhile."""
        now = time.monotonic()
        key = (enterprise.number, source.name, number)
        line = self._lines.setdefault(key[:2], _Line())
        kept = self._cache.get(key, now)
        metrics.LOOKUP_CACHE.labels("miss" if kept is None else "hit" if kept.is_fresh else "stale").inc()
        if kept is not None and kept.is_fresh:
            return Said(source.name, kept.value)
        asked = line.flights.get(number) or self._take_off(line, enterprise, source, number, now)
        return asked if kept is None else Said(source.name, kept.value)

    def _take_off(self, line: _Line, enterprise: Enterprise, source: Source, number: str, now: float) -> asyncio.Task[Said] | Said:
        room = line.health.room(now, MAX_FLIGHTS)
        if len(line.flights) >= room:
            return Said(source.name, failed="paused after failures" if line.health.state(now) is not Breaker.CLOSED else "too many questions at once")
        line.health.begin(now)
        line.gate = line.gate or asyncio.Semaphore(source.concurrency)
        task = self._supervisor.job(f"ask {source.name}", self._fly(line, line.gate, enterprise, source, number))
        line.flights[number] = task
        task.add_done_callback(lambda _: line.flights.pop(number, None))
        return task

    async def _fly(self, line: _Line, gate: asyncio.Semaphore, enterprise: Enterprise, source: Source, number: str) -> Said:
        deadline = time.monotonic() + FLIGHT_DEADLINE_S
        try:
            async with asyncio.timeout(FLIGHT_DEADLINE_S), gate:
                known = await source.responsible(number, max(0.05, deadline - time.monotonic()))
        except SourceFailed as why:
            if why.outage:
                line.health.failed(time.monotonic())
            else:
                line.health.throttled(time.monotonic(), 0.0)
            return Said(source.name, failed=str(why)[:200])
        except TimeoutError:
            line.health.failed(time.monotonic())
            return Said(source.name, failed="no answer", is_late=True)
        except Exception as error:  # a bug in an adapter is that source's failure and nobody else's
            log.error("a source failed", enterprise=enterprise.number, source=source.name, exc_info=True)
            line.health.failed(time.monotonic())
            return Said(source.name, failed=f"internal: {type(error).__name__}")
        now = time.monotonic()
        line.health.succeeded(now)
        if self._lines.get((enterprise.number, source.name)) is line:  # else the settings changed meanwhile
            self._cache.put((enterprise.number, source.name, number), known, enterprise.smart_redirect.cache_ttl_s, now)
        return Said(source.name, known)

    async def _judge(self, question: Question, choice: Choice, sources: Sequence[Source], presence_until: float) -> Decision:
        extension = choice.extension
        if extension is None:
            return verdict(choice, DeviceState.UNKNOWN, UserStatus.FREE, False)
        within_s = min(PRESENCE_S, presence_until - time.monotonic())
        surroundings = await self._presence.at(question.enterprise, question.channel, question.uniqueid, extension, within_s)
        call = (question.enterprise, surroundings.conversation or question.uniqueid or question.channel)
        was_tried = extension in self._returned.get(call, ()) or surroundings.was_tried(extension)
        status = await self._status(question.enterprise, extension, sources)
        decision = verdict(choice, surroundings.state(extension), status, was_tried)
        if decision.status is Status.FOUND and call[1]:
            self._returned.setdefault(call, set()).add(extension)
            self._returned.move_to_end(call)
            if len(self._returned) > MAX_RETURNED:
                self._returned.popitem(last=False)
        return decision

    async def _status(self, enterprise: str, extension: str, sources: Sequence[Source]) -> UserStatus:
        """What the extension's user set, in whichever CRM; the first that is not free counts."""
        for source in sources:
            users = [user for user, held in source.user_extensions.items() if held == extension]
            statuses = await self._statuses.get((enterprise, source.name)) if users else {}
            for user in users:
                if (status := statuses.get(user, UserStatus.FREE)) is not UserStatus.FREE:
                    return status
        return UserStatus.FREE

    def _views_of(self, enterprise: Enterprise) -> list[PbxView]:
        known = self._views.get(enterprise.number)
        if known is None or known[0] is not enterprise:
            known = self._views[enterprise.number] = (enterprise, [enterprise.view(pbx) for pbx in enterprise.pbxs])
        return known[1]

    def _write_down(self, question: Question, decision: Decision, took_s: float) -> None:
        status, took_ms = str(decision.status), round(took_s * 1000, 1)
        metrics.LOOKUPS.labels(status).inc()
        metrics.LOOKUP_SECONDS.observe(took_s)
        log.debug(
            "smart redirect", enterprise=question.enterprise, via=question.via, phone=question.phone[:32], status=status,
            extension=decision.extension, reason=decision.reason, took_ms=took_ms,
        )  # fmt: skip
        self._journal.note(
            question.enterprise,
            decision.source or "lookup",
            "caller_name" if question.name_only else "smart_redirect",
            {
                "phone": question.phone[:64],
                "channel": question.channel[:128],
                "uniqueid": question.uniqueid[:64],
                "via": question.via,
                "line": question.line[:64] or None,
            },
            {"status": status, "extension": decision.extension, "name": decision.name, "reason": decision.reason, "took_ms": took_ms},
            decision.reason if decision.status in (Status.TIMEOUT, Status.ERROR) else None,
        )


def _now(source: Source, asked: asyncio.Task[Said] | Said) -> Said:
    if isinstance(asked, Said):
        return asked
    return asked.result() if asked.done() and not asked.cancelled() else Said(source.name, failed="no answer in time", is_late=True)


def _extension_of(sources: Sequence[Source], views: Sequence[PbxView], name: str, known: Responsible) -> str | None:
    """The enterprise's own list of extensions counts before what the CRM holds; either must be an extension of ours, in digits."""
    held = next((source.user_extensions for source in sources if source.name == name), {})
    extension = held[known.user_id] if known.user_id is not None and known.user_id in held else known.extension
    if extension and extension.isascii() and extension.isdigit() and any(view.is_extension(extension) for view in views):
        return extension
    return None


def _named(choice: Choice, is_known: bool) -> Decision:
    """The answer where only the name is wanted: found when anybody knows the customer."""
    if is_known:
        return Decision(Status.FOUND, None, choice.name, "the customer is known")
    return Decision(choice.otherwise, None, choice.name, choice.reason)
