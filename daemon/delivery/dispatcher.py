"""Moves what is due from the outbox to the CRMs. One worker per connection: a dead CRM delays nobody else.

A worker lives while its connection has something due. It claims heads of lanes within its breaker's room, popups
first, tells the CRM, and settles. The wake after a commit comes from this process; a look at the database once a
second finds what is due by time or was written by another daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import asyncpg
import structlog

from daemon.delivery.health import Breaker, Health, HealthView
from daemon.delivery.outbox import Claimed, Outbox, Settled
from daemon.delivery.port import Attempt, CrmPort, CrmPorts
from daemon.delivery.verdict import Verdict, verdict
from daemon.model.call import Call
from daemon.model.delivery import Ambiguous, AuthExpired, Delivered, Delivery, Kind, Outcome, Policy, Rejected, Retry, Throttled
from daemon.model.phone import masked
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics

POLL_S = 1.0
CLAIM_MARGIN_S = 10.0
ACCOUNT_WAIT_S = 3.0
REFRESH_DEADLINE_S = 15.0
DRAIN_S = 20.0
DEFAULT_DEADLINE_S = 10.0
POPUPS = (Kind.POPUP, Kind.HANGUP)
Key = tuple[str, str]

log = structlog.get_logger()


@dataclass
class _Worker:
    """The state of one connection in this process; kept while the process lives, it is small."""

    health: Health = field(default_factory=Health)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: dict[asyncio.Task[None], Kind] = field(default_factory=dict)
    needs_reauth: bool = False
    running: bool = False
    is_behind: bool = False  # more may be due than there was room for
    breaker: Breaker = Breaker.CLOSED


class Dispatcher:
    """Owns all deliveries in flight.

    `on_state(enterprise, integration, state, reason)` hears of connections that change, `on_settled(enterprise, integration,
    delivery, state)` of every attempt's end.
    """

    def __init__(
        self,
        outbox: Outbox,
        ports: CrmPorts,
        on_state: Callable[[str, str, str, str], None],
        on_settled: Callable[[str, str, Delivery, str], None] = lambda *_: None,
    ) -> None:
        self._on_settled = on_settled
        self._outbox = outbox
        self._ports = ports
        self._on_state = on_state
        self._workers: dict[Key, _Worker] = {}
        self._supervisor = Supervisor("delivery")
        self._accounts: dict[str, asyncio.Semaphore] = {}
        self._stopping = False

    def wake(self, enterprise: str, integration: str) -> None:
        """Something was committed for this connection."""
        if self._stopping:
            return
        key = (enterprise, integration)
        worker = self._workers.setdefault(key, _Worker())
        worker.wake.set()
        if not worker.running:
            worker.running = True
            self._supervisor.job("/".join(key), self._work(key, worker))

    def health(self, enterprise: str) -> dict[str, HealthView]:
        """By integration, as this process knows it: one that had nothing to deliver yet is not there."""
        now = time.monotonic()
        return {key[1]: w.health.view(now, len(w.in_flight), w.needs_reauth) for key, w in self._workers.items() if key[0] == enterprise}

    def held_back(self) -> Counter[tuple[str, str]]:
        """How many connections of this process are held back, by integration and breaker state; closed ones are not counted."""
        now = time.monotonic()
        states = ((integration, worker.health.state(now)) for (_, integration), worker in self._workers.items())
        return Counter((integration, str(state)) for integration, state in states if state is not Breaker.CLOSED)

    def settings_changed(self, enterprises: set[str]) -> None:
        """New settings may have cured a connection."""
        for (owner, integration), worker in list(self._workers.items()):
            if owner in enterprises and worker.needs_reauth:
                worker.needs_reauth = False
                worker.health = Health()
                self.note_state(owner, integration, "ok", "settings changed")
                self.wake(owner, integration)

    async def run(self) -> None:
        """Looks for what is due by time, and for claims that outlived their owner; goes on looking while the database is away."""
        is_away = False
        while True:
            try:
                if released := await self._outbox.release_expired():
                    log.warning("deliveries taken back from a stopped daemon", count=released)
                for enterprise, integration in await self._outbox.due():
                    self.wake(enterprise, integration)
                if is_away:
                    log.warning("database is back, deliveries go on")
                is_away = False
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                if not is_away:
                    log.error("database is away, deliveries wait", error=str(error)[:200])
                is_away = True
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """Claims nothing more, waits for what is in flight, then lets go."""
        self._stopping = True
        in_flight = [task for worker in self._workers.values() for task in worker.in_flight]
        if in_flight:
            await asyncio.wait(in_flight, timeout=DRAIN_S)
        await self._supervisor.stop()

    # -- one connection ------------------------------------------------------------------------------------------------

    async def _work(self, key: Key, worker: _Worker) -> None:
        """Starts what is due until there is no more of it or no room; then the end of an attempt wakes it again."""
        try:
            while not self._stopping:
                worker.wake.clear()
                port = self._ports.port(*key)
                if port is None or worker.needs_reauth:
                    return
                may_go_on = await self._start_due(key, worker, port)
                wait_s = worker.health.wait_s(time.monotonic())
                if wait_s > 0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(worker.wake.wait(), wait_s)
                elif not worker.wake.is_set() and not may_go_on:
                    return
        finally:
            worker.running = False

    @staticmethod
    def _room(worker: _Worker, port: CrmPort) -> int:
        return worker.health.room(time.monotonic(), port.policy.concurrency) - len(worker.in_flight)

    async def _start_due(self, key: Key, worker: _Worker, port: CrmPort) -> bool:
        """Claims as much as there is room for; gives whether there may be more, and room for it."""
        claim_s = max(port.policy.deadline_s.values()) + CLAIM_MARGIN_S
        worker.is_behind = may_go_on = False
        at_work = port.policy.one_at_a_time.intersection(worker.in_flight.values())
        is_probing = worker.health.state(time.monotonic()) is Breaker.HALF_OPEN  # its one place is for whatever is due
        for kinds, kept in _shares(port.policy, at_work):
            kept = 0 if is_probing else kept
            room, is_all = self._room(worker, port) - kept, False
            if room > 0:
                good_until = time.monotonic() + CLAIM_MARGIN_S
                claims = await self._outbox.claim(*key, port.policy, kinds, room, claim_s)
                for batch in claims.requests:
                    self._launch(key, worker, port, batch, good_until)
                room, is_all = self._room(worker, port) - kept, claims.is_all
            worker.is_behind |= not is_all
            may_go_on |= not is_all and room > 0
        return may_go_on

    def _launch(self, key: Key, worker: _Worker, port: CrmPort, batch: list[Claimed], good_until: float) -> None:
        worker.health.begin(time.monotonic())
        task = self._supervisor.job("/".join(key), self._attempt(key, worker, port, batch, good_until))
        worker.in_flight[task] = batch[0].delivery.kind
        task.add_done_callback(lambda done: worker.in_flight.pop(done, None))

    async def _attempt(self, key: Key, worker: _Worker, port: CrmPort, batch: list[Claimed], good_until: float) -> None:
        kind = batch[0].delivery.kind
        deadline_s = port.policy.deadline_s.get(kind, DEFAULT_DEADLINE_S)
        started = time.monotonic()
        attempt = await self._tell_in_turn(port, batch, deadline_s, good_until)
        duration_s = time.monotonic() - started
        settled = []
        for claimed, outcome in zip(batch, attempt.outcomes, strict=True):
            result = verdict(outcome, kind, claimed.delivery.attempt, port.policy, random.random())
            if port.observe and isinstance(outcome, Delivered):
                result = Verdict("observed")
            if claimed.is_uncertain and isinstance(outcome, (Throttled, AuthExpired)):
                result = replace(result, uncertain=True)  # nobody could look yet: it may be there as before
            settled.append(Settled(claimed.delivery, result))
            self._record(key, claimed, outcome, result, duration_s, attempt)
        is_more = True
        try:
            await self._judge_health(key, worker, port, attempt.outcomes, kind)
        finally:
            try:
                is_more = await self._outbox.settle(*key, settled, attempt.exchanges)
            finally:
                self._ended(key, worker, is_more=is_more)
        for item in settled:
            self._on_settled(*key, item.delivery, item.verdict.state)

    def _ended(self, key: Key, worker: _Worker, *, is_more: bool) -> None:
        """An attempt has left its room, and its lane."""
        task = asyncio.current_task()
        assert task is not None
        worker.in_flight.pop(task, None)
        if is_more or worker.is_behind:
            self.wake(*key)

    async def _tell_in_turn(self, port: CrmPort, batch: list[Claimed], deadline_s: float, good_until: float) -> Attempt:
        """Within the requests that all enterprises of one CRM account may have in flight together. Begun after `good_until` (monotonic) it could
        outlive its claim: a process that was stopped for a while must not send what another one has claimed meanwhile."""
        account = self._accounts.setdefault(port.account, asyncio.Semaphore(port.policy.concurrency))
        try:
            if account.locked():
                await asyncio.wait_for(account.acquire(), ACCOUNT_WAIT_S)
            else:
                await account.acquire()
        except TimeoutError:  # well before the claim runs out: nothing may be sent under somebody else's
            return Attempt([Throttled("the account's other enterprises use all its requests", 1.0)] * len(batch), [])
        try:
            if time.monotonic() > good_until:
                return Attempt([Throttled("the claim is too old: it is made anew", 0.0, own_kind=True)] * len(batch), [])
            return await self._tell(port, batch, deadline_s)
        finally:
            account.release()

    async def _tell(self, port: CrmPort, batch: list[Claimed], deadline_s: float) -> Attempt:
        deliveries = [claimed.delivery for claimed in batch]
        kind = deliveries[0].kind
        try:
            if batch[0].is_uncertain and kind not in port.policy.repeatable:
                attempt = await port.reconcile(deliveries[0], deadline_s)
                if not isinstance(attempt.outcomes[0], Retry):
                    return _final(attempt)
            return await port.deliver(deliveries, deadline_s)
        except Exception as error:
            log.error("adapter failed", kind=str(kind), exc_info=True)
            reason = f"bug in the adapter: {type(error).__name__}: {error}"
            return Attempt([Retry(reason)] * len(batch), [])

    async def _judge_health(self, key: Key, worker: _Worker, port: CrmPort, outcomes: Sequence[Outcome], kind: Kind) -> None:
        """One request is one try; of the many that a batch which takes its time needs, each kind of outcome counts once."""
        now = time.monotonic()
        is_one = len({type(o) for o in outcomes}) == 1 or kind in port.policy.one_at_a_time
        for outcome in {type(o): o for o in outcomes}.values() if is_one else outcomes:
            match outcome:
                case Delivered() | Rejected():
                    worker.health.succeeded(now)
                case Retry(_, after_s) if after_s == 0:
                    worker.health.succeeded(now)  # the CRM answered; the item is only sent in another way
                case Retry() | Ambiguous():
                    worker.health.failed(now)
                case Throttled(_, after_s, own_kind):
                    worker.health.throttled(now, 0.0 if own_kind else after_s)
                case AuthExpired(reason):
                    worker.health.throttled(now, 0.0)  # a probe that got this answer has ended
                    await self._auth_expired(key, worker, port, reason)
        breaker = worker.health.state(now)
        if breaker is not worker.breaker:
            worker.breaker = breaker
            log.warning("crm breaker", enterprise=key[0], integration=key[1], breaker=str(breaker))
            self._on_state(*key, str(breaker), "")

    async def _auth_expired(self, key: Key, worker: _Worker, port: CrmPort, reason: str) -> None:
        if worker.needs_reauth:
            return
        try:
            if await port.refresh(REFRESH_DEADLINE_S):
                return
        except Exception:
            log.error("token refresh failed", enterprise=key[0], integration=key[1], exc_info=True)
        worker.needs_reauth = True
        await self._outbox.set_connection(*key, "needs_reauth", reason)
        log.error("crm refuses the credentials, its deliveries wait", enterprise=key[0], integration=key[1], reason=reason)
        self._on_state(*key, "needs_reauth", reason)

    def note_state(self, enterprise: str, integration: str, state: str, reason: str) -> None:
        """Stores and tells a connection's state; what it delivers goes on or waits as before."""
        self._supervisor.job("connection state", self._outbox.set_connection(enterprise, integration, state, reason))
        self._on_state(enterprise, integration, state, reason)

    def _record(self, key: Key, claimed: Claimed, outcome: Outcome, result: Verdict, duration_s: float, attempt: Attempt) -> None:
        """The attempt's one wide event, and its metrics."""
        enterprise, integration = key
        delivery = claimed.delivery
        name = type(outcome).__name__.lower()
        metrics.DELIVERIES.labels(integration, str(delivery.kind), name).inc()
        if result.state == "dead":
            metrics.GIVEN_UP.labels(integration, str(delivery.kind)).inc()
        metrics.DELIVERY_SECONDS.labels(integration, str(delivery.kind)).observe(duration_s)
        status = attempt.exchanges[-1].response.get("status") if attempt.exchanges else None
        level = log.info if result.state in ("delivered", "observed") else log.warning
        level(
            "delivery", enterprise=enterprise, integration=integration, delivery=delivery.id, kind=str(delivery.kind), **delivery.names,
            customer=masked(delivery.about.customer_number) if isinstance(delivery.about, Call) else None,
            attempt=delivery.attempt, outcome=name, state=result.state, http_status=status,
            duration_ms=round(duration_s * 1000, 1), waited_ms=round(claimed.waited_s * 1000, 1), error=result.error,
            next_in_s=round(result.due_in_s, 1) if result.due_in_s is not None else None,
        )  # fmt: skip


def _final(attempt: Attempt) -> Attempt:
    """What reconciling could not decide is shown to a person, never sent again."""
    outcome = attempt.outcomes[0]
    if isinstance(outcome, Ambiguous):
        return Attempt([Rejected(f"may or may not have arrived: {outcome.reason}")], attempt.exchanges)
    return attempt


def _shares(policy: Policy, at_work: Collection[Kind]) -> list[tuple[list[Kind], int]]:
    """What is claimed together, and how much room is kept from it for what matters more; without kinds of which no more may be in flight."""
    kinds = [kind for kind in policy.deadline_s if kind not in at_work]
    if not policy.kept_for_popups:
        return [(kinds, 0)]
    return [([kind for kind in kinds if kind in POPUPS], 0), ([kind for kind in kinds if kind not in POPUPS], policy.kept_for_popups)]
