"""Deliveries about records: a lane of their own, in order, with memory, next to the lanes of calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from adapters.base import Connection
from daemon.delivery.letters import DeliveryFilter
from daemon.delivery.outbox import tell_of
from daemon.model.call import Call
from daemon.model.delivery import Delivered, Delivery, Kind, Outcome, Planned, Policy, Priority, Rate, Record, Retry
from daemon.model.signal import Ended
from daemon.store.pool import Database
from tests.fakes.stateful import Stateful
from tests.rig import NUMBER, Rig, a_call, rig


class Orders(Stateful):
    """Remembers what it was told, and fails the first try of what a set names."""

    name: ClassVar[str] = "orders"
    policy: ClassVar[Policy] = Policy({Kind.MESSAGE: 1.0, Kind.JOURNAL: 1.0}, {}, frozenset(Kind), {"all": Rate(1_000, 1.0)}, 8)

    def __init__(self) -> None:
        self.told: list[tuple[str, Any, dict[str, Any]]] = []
        self.failing: set[Any] = set()

    async def deliver(self, connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        [delivery] = batch
        number = delivery.payload.get("n")
        if number in self.failing:
            self.failing.discard(number)
            return [Retry("not now", after_s=0)]
        about = delivery.about.linkedid if isinstance(delivery.about, Call) else str(delivery.about)
        self.told.append((about, number, dict(delivery.memory)))
        return [Delivered(memory={"last": number})]


async def tell(r: Rig, record: Record, numbers: range) -> None:
    async with r.db.tenant(NUMBER) as connection:
        planned = [Planned(Kind.MESSAGE, f"{record}:{n}", {"n": n}, Priority.JOURNAL) for n in numbers]
        await tell_of(connection, NUMBER, "orders", record, planned)


async def test_a_record_is_a_lane_in_order_that_no_other_record_and_no_call_waits_for(db: Database) -> None:
    orders = Orders()
    orders.failing = {0, 2}
    one, two = Record("order", "12"), Record("order", "with/slash: 1")
    async with rig(db, orders, {"url": "http://127.0.0.1:9"}, run=False) as r:
        await tell(r, one, range(5))
        await tell(r, two, range(10, 15))
        await r.record(a_call(), Ended(()), wake=False)
        r.dispatcher.wake(NUMBER, "orders")
        assert {d["state"] for d in await r.settled()} == {"delivered"}
        assert [n for about, n, _ in orders.told if about == "order/12"] == list(range(5))
        assert [n for about, n, _ in orders.told if about == "order/with/slash: 1"] == list(range(10, 15))
        assert [memory for about, _, memory in orders.told if about == "order/12"] == [{}, *({"last": n} for n in range(4))]
        assert len([about for about, *_ in orders.told if about == "1.1"]) == 1
        shown = await r.outbox.page(NUMBER, DeliveryFilter(record=str(two)))
        assert [(d["record"], d["call"]) for d in shown] == [(str(two), None)] * 5


async def test_the_same_key_is_told_once_and_what_is_rolled_back_is_not_told(db: Database) -> None:
    async with rig(db, Orders(), {"url": "http://127.0.0.1:9"}, run=False) as r:
        record, planned = Record("order", "7"), [Planned(Kind.MESSAGE, "k", {}, Priority.SYNC)]
        async with r.db.tenant(NUMBER) as connection:
            assert [await tell_of(connection, NUMBER, "orders", record, planned) for _ in range(2)] == [1, 0]
        try:
            async with r.db.tenant(NUMBER) as connection:
                await tell_of(connection, NUMBER, "orders", record, [Planned(Kind.MESSAGE, "other", {}, Priority.SYNC)])
                raise KeyError
        except KeyError:
            pass
        assert len(await r.outbox.list(NUMBER)) == 1
