"""The lookup at work: one budget whatever the sources do, one question per number, breakers, stale answers, statuses, loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from daemon.lookup.decision import Decision, Status
from daemon.lookup.ports import SourceFailed
from daemon.lookup.service import BUDGET_S, Lookup, Question
from daemon.model.crm import Responsible, UserStatus
from daemon.model.device import DeviceState
from daemon.tenants.document import Enterprise
from daemon.tenants.service import Tenancy
from tests.timeless import LOOP_TIME, timeless

ANNA, BORIS = Responsible("19", None, "Олег"), Responsible("20", "151", None)
PHONE = "+375296254070"


@pytest.fixture(autouse=True)
def _loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("service", "shared"):
        monkeypatch.setattr(f"daemon.lookup.{module}.time", LOOP_TIME)


@dataclass
class FakeSource:
    """Says what it is told, as late as it is told."""

    name: str
    says: Responsible | Exception | None = None
    late_s: float = 0.0
    concurrency: int = 2
    user_extensions: Mapping[str, str | None] = field(default_factory=lambda: {"19": "150"})
    asked: list[str] = field(default_factory=list)

    async def responsible(self, phone: str, deadline_s: float) -> Responsible | None:
        self.asked.append(phone)
        if self.late_s:
            await asyncio.sleep(self.late_s)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@dataclass
class House:
    """All that a lookup needs, in its simplest form."""

    found: list[FakeSource]
    rules: dict[str, Any] = field(default_factory=dict)
    paused: bool = False
    devices: dict[str, DeviceState] = field(default_factory=lambda: {"150": DeviceState.FREE, "151": DeviceState.FREE})
    tried: set[str] = field(default_factory=set)
    set_statuses: dict[str, UserStatus] = field(default_factory=dict)
    noted: list[tuple[str, str, Mapping[str, object], str | None]] = field(default_factory=list)
    asked_for: list[Mapping[str, object]] = field(default_factory=list)
    conversation: str | None = None

    def __post_init__(self) -> None:
        document = {
            "number": "0367",
            "name": "x",
            "paused": self.paused,
            "smart_redirect": self.rules,
            "pbxs": [{"name": "m", "host": "h", "internal_number": "^1..$"}],
        }
        self._tenancy = Tenancy(Enterprise.model_validate(document), {})

    def get(self, number: str) -> Tenancy | None:
        return self._tenancy if number == "0367" else None

    def sources(self, enterprise: str) -> list[FakeSource]:
        return self.found

    async def at(self, enterprise: str, channel: str, uniqueid: str, extension: str, within_s: float) -> House:
        return self

    def state(self, extension: str) -> DeviceState:
        return self.devices.get(extension, DeviceState.UNKNOWN)

    def was_tried(self, extension: str) -> bool:
        return extension in self.tried

    async def by_user(self, enterprise: str, integration: str) -> Mapping[str, UserStatus]:
        return self.set_statuses

    def note(self, enterprise: str, source: str, event_type: str, request: Mapping[str, object], response: Mapping[str, object], error: str | None) -> None:
        self.noted.append((source, event_type, response, error))
        self.asked_for.append(request)


@asynccontextmanager
async def a_lookup(*found: FakeSource, **more: Any) -> AsyncIterator[tuple[Callable[..., Any], House, Lookup]]:
    house = House(list(found), **more)
    lookup = Lookup(house, house, house, house, house)  # type: ignore[arg-type]

    async def ask(phone: str = PHONE, **rest: Any) -> Decision:
        return await lookup.ask(Question("0367", phone, **rest))

    try:
        yield ask, house, lookup
    finally:
        await lookup.stop()


@timeless
async def test_the_first_source_that_names_somebody_settles_it_and_the_rest_is_not_asked() -> None:
    first, second = FakeSource("a", ANNA), FakeSource("b", BORIS)
    async with a_lookup(first, second) as (ask, house, _):
        assert await ask() == Decision(Status.FOUND, "150", "Олег", "named by a", "a")
        assert (first.asked, second.asked) == ([PHONE], [])
        await asyncio.sleep(0)
        assert [(source, kind, error) for source, kind, _, error in house.noted] == [("a", "smart_redirect", None)]


@timeless
async def test_the_log_tells_which_line_the_customer_dialled() -> None:
    async with a_lookup(FakeSource("a", ANNA)) as (ask, house, _):
        await ask(line="+375171112233")
        await ask()
        await asyncio.sleep(0)
        assert [request["line"] for request in house.asked_for] == ["+375171112233", None]


@timeless
async def test_a_status_that_is_set_here_counts_at_once() -> None:
    async with a_lookup(FakeSource("a", ANNA)) as (ask, house, lookup):
        assert (await ask()).status is Status.FOUND
        house.set_statuses = {"19": UserStatus.DINNER}
        lookup.status_changed("0367", "a")
        assert (await ask()).status is Status.BUSY


@timeless
async def test_our_own_list_of_extensions_counts_before_the_crms() -> None:
    async with a_lookup(FakeSource("a", Responsible("19", "151", None))) as (ask, _, _2):
        assert (await ask()).extension == "150"
    async with a_lookup(FakeSource("a", Responsible("19", "151", None), user_extensions={"19": None}), FakeSource("b", BORIS)) as (ask, _, _2):
        assert (await ask()).source == "b"
    for hostile in ("999", "1;0", "150&151", "", "１５０"):
        async with a_lookup(FakeSource("a", Responsible("77", hostile, None))) as (ask, _, _2):
            assert (await ask()).status is Status.UNKNOWN


@timeless
async def test_a_source_that_stalls_costs_its_share_and_the_next_is_used() -> None:
    async with a_lookup(FakeSource("a", ANNA, late_s=30), FakeSource("b", BORIS)) as (ask, _, _2):
        started = LOOP_TIME.monotonic()
        decision = await ask()
        assert (decision.status, decision.source) == (Status.FOUND, "b")
        assert LOOP_TIME.monotonic() - started < BUDGET_S


@timeless
async def test_a_late_answer_of_the_first_still_counts_before_that_of_the_second() -> None:
    async with a_lookup(FakeSource("a", ANNA, late_s=0.35), FakeSource("b", Responsible(None, None, "name"), late_s=0.0)) as (ask, _, _2):
        assert (await ask()).source == "a"


@timeless
async def test_nobody_waits_longer_than_the_budget_and_the_late_answer_is_there_next_time() -> None:
    source = FakeSource("a", ANNA, late_s=2.0)
    async with a_lookup(source) as (ask, _, _2):
        started = LOOP_TIME.monotonic()
        assert (await ask()).status is Status.TIMEOUT
        assert LOOP_TIME.monotonic() - started < BUDGET_S + 0.001
        async with asyncio.timeout(30):
            while (await ask()).status is not Status.FOUND:
                await asyncio.sleep(0.05)
        assert source.asked == [PHONE]


@timeless
async def test_a_number_is_asked_for_once_however_many_want_to_know() -> None:
    source = FakeSource("a", ANNA, late_s=0.05)
    async with a_lookup(source) as (ask, _, _2):
        decisions = await asyncio.gather(*(ask() for _ in range(50)))
        assert {decision.status for decision in decisions} == {Status.FOUND}
        assert source.asked == [PHONE]


@timeless
async def test_after_failures_the_breaker_answers_at_once_and_nobody_is_asked() -> None:
    source = FakeSource("a", SourceFailed("500"))
    async with a_lookup(source) as (ask, _, lookup):
        reasons = [(await ask(f"+37529625{n:04d}")).reason for n in range(15)]
        assert len(source.asked) == 10
        assert reasons[0] == "a: 500"
        assert reasons[-1] == "a: paused after failures"
        source.says = ANNA
        lookup.settings_changed({"0367"})
        assert (await ask()).status is Status.FOUND


@timeless
async def test_a_refusal_says_nothing_of_the_crms_health() -> None:
    source = FakeSource("a", SourceFailed("400", outage=False))
    async with a_lookup(source) as (ask, _, _2):
        for n in range(15):
            assert (await ask(f"+37529625{n:04d}")).status is Status.ERROR
        assert len(source.asked) == 15


@timeless
async def test_a_stale_answer_serves_while_a_newer_one_is_fetched() -> None:
    source = FakeSource("a", BORIS, user_extensions={"19": "150", "20": "151"})
    async with a_lookup(source) as (ask, _, lookup):
        lookup._cache.put(("0367", "a", PHONE), ANNA, 1, LOOP_TIME.monotonic() - 10)
        assert (await ask()).extension == "150"
        async with asyncio.timeout(30):
            while (await ask()).extension != "151":
                await asyncio.sleep(0.01)
        assert source.asked == [PHONE]


@timeless
async def test_a_bug_in_a_source_is_that_sources_failure() -> None:
    with capture_logs() as logged:
        async with a_lookup(FakeSource("a", RuntimeError("a bug")), FakeSource("b", BORIS)) as (ask, _, _2):
            assert (await ask()).source == "b"
        async with a_lookup(FakeSource("a", RuntimeError("a bug"))) as (ask, house, _2):
            assert (await ask()).status is Status.ERROR
            house.at = None  # type: ignore[assignment,method-assign]
            house.found[0].says = ANNA
            assert await ask("+375292000002") == Decision(Status.ERROR, reason="internal: TypeError")
    assert [entry["event"] for entry in logged if entry["log_level"] == "error"] == ["a source failed", "a source failed", "lookup failed, the call goes on"]


@pytest.mark.parametrize("status", [UserStatus.BUSY, UserStatus.DINNER, UserStatus.BREAK])
@timeless
async def test_who_is_not_free_in_the_crm_gets_no_call(status: UserStatus) -> None:
    async with a_lookup(FakeSource("a", ANNA), set_statuses={"19": status}) as (ask, house, _):
        assert (await ask()).reason == f"150 has the status {status}"
        house.set_statuses["19"] = UserStatus.FREE
        assert (await ask()).status is Status.FOUND


@timeless
async def test_a_number_is_returned_once_in_a_call_and_again_in_another() -> None:
    async with a_lookup(FakeSource("a", ANNA)) as (ask, house, _):
        assert [(await ask(uniqueid=u)).status for u in ("1.1", "1.1", "1.2")] == [Status.FOUND, Status.BUSY, Status.FOUND]
        house.conversation = "9.9"
        assert [(await ask(uniqueid=u)).status for u in ("9.9", "9.10")] == [Status.FOUND, Status.BUSY], "the channels of one call"
        house.conversation, house.tried = "8.8", {"150"}
        assert (await ask(uniqueid="8.8")).reason == "150 was tried in this call already"
        house.conversation, house.tried = None, set()
        assert [(await ask()).status for _ in range(2)] == [Status.FOUND] * 2, "nobody knows which call this is"


@pytest.mark.parametrize(
    ("more", "status", "name"),
    [({"rules": {"mode": "off"}}, Status.DISABLED, ""), ({"paused": True}, Status.DISABLED, ""), ({"rules": {"mode": "name"}}, Status.FOUND, "Олег")],
)
@timeless
async def test_the_enterprise_decides_how_far_it_goes(more: dict[str, Any], status: Status, name: str) -> None:
    async with a_lookup(FakeSource("a", ANNA), **more) as (ask, _, _2):
        decision = await ask()
        assert (decision.status, decision.extension, decision.name) == (status, None, name)


@timeless
async def test_only_the_name_needs_no_manager_and_no_phone() -> None:
    async with a_lookup(FakeSource("a", Responsible(None, None, "Олег")), devices={}) as (ask, house, _):
        decision = await ask(name_only=True)
        assert (decision.status, decision.name) == (Status.FOUND, "Олег")
        await asyncio.sleep(0)
        assert house.noted[0][1] == "caller_name"


@timeless
async def test_without_a_ttl_every_call_asks() -> None:
    source = FakeSource("a", ANNA)
    async with a_lookup(source, rules={"cache_ttl_s": 0}) as (ask, _, _2):
        await ask()
        await ask()
        assert len(source.asked) == 2


@timeless
async def test_names_are_known_of_whom_sources_were_asked_and_nobody_is_asked_for_them() -> None:
    source = FakeSource("a", ANNA)
    async with a_lookup(source) as (ask, _, lookup):
        assert lookup.known_names("0367", [PHONE]) == {}
        await ask()
        asked, counts = list(source.asked), lookup.cache_counts("0367")
        assert lookup.known_names("0367", [PHONE, "+375290000000"]) == {PHONE: "Олег"}
        assert lookup.known_names("0400", [PHONE]) == {}
        assert (source.asked, lookup.cache_counts("0367")) == (asked, counts)
