"""A stolen clientId dials for its finder's profit, by every way that fraud is told by: what it gets is bounded, and whose it was can go on working."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from daemon.model.phone import PhoneNumber
from daemon.originate.guard import range_abroad
from daemon.originate.service import _limits
from daemon.originate.states import State
from daemon.store.originates import OriginateRepository, OriginateRequest
from daemon.store.pool import Database
from daemon.tenants.document import Counters, DialRules, Enterprise

OPEN = {"per_extension_per_minute": 1_000, "concurrent": 1_000, "per_day": 100_000}
EVERYTHING_ELSE_OPEN = DialRules(**OPEN, per_person=Counters(), abroad=Counters(), allowed_prefixes=("+375", "+44"))
ABROAD, AT_HOME = "+447700900", "+37529625"


class Phone:
    """Clicks as the service makes them, while time passes by making what was before older."""

    def __init__(self, db: Database, owner: asyncpg.Connection, rules: DialRules) -> None:
        self._repository, self._owner = OriginateRepository(db), owner
        self.enterprise = Enterprise(number="0367", name="Июнь", pbxs=(), dial_rules=rules, timezone="UTC")

    async def click(self, extension: str, phone: str) -> OriginateRequest:
        key = uuid.uuid4()
        wanted = {
            "id": str(key), "pbx": "main", "extension": extension, "phone": phone, "source": "retailcrm", "channel_id": f"c{key.hex}",
            "other_channel_id": f"c{key.hex}-2",
        }  # fmt: skip
        limits = _limits(self.enterprise, PhoneNumber(phone), datetime.now(UTC)) | {"day_began": (datetime.now(UTC) - timedelta(hours=24)).isoformat()}
        return await self._repository.reserve("0367", wanted, limits)

    async def pass_by(self, **time: float) -> None:
        await self._owner.execute("update originate_requests set created_at = created_at - $1::interval", timedelta(**time))
        await self._owner.execute(
            "update calls set started_at = started_at - $1::interval, answered_at = answered_at - $1::interval, ended_at = ended_at - $1::interval",
            timedelta(**time),
        )

    async def talk(self, request: OriginateRequest, minutes: float, *, over: bool = True) -> None:
        """What came of a click: a call that was talked on."""
        call, now = uuid.uuid4(), datetime.now(UTC)
        await self._owner.execute(
            "insert into calls (enterprise_number, id, pbx, linkedid, direction, started_at, answered_at, ended_at, wait_seconds, talk_seconds, missed, rang, "
            "transfers, click_to_call, consult, recordings, gap) values ('0367', $1, 'main', '1', 'out', $2, $2, $3, 0, $4, false, '{}', '[]', true, false, "
            "'{}', false)",
            call, now - timedelta(minutes=minutes), now if over else None, minutes * 60 if over else 0.0,
        )  # fmt: skip
        await self._owner.execute("update originate_requests set call_id = $1, state = $2 where id = $3", call,
                                  "ended" if over else "customer_answered", uuid.UUID(request.id))  # fmt: skip

    async def end(self, request: OriginateRequest) -> None:
        await self._owner.execute("update originate_requests set state = 'ended' where id = $1", uuid.UUID(request.id))


async def phone_with(db: Database, owner: asyncpg.Connection, whose: str, name: str, limit: int) -> Phone:
    counters = Counters(**{name: limit})
    return Phone(db, owner, EVERYTHING_ELSE_OPEN.model_copy(update={whose: counters}))


async def abuse(phone: Phone, whose: str, name: str, n: int) -> OriginateRequest:
    """The n-th click of the pattern that this counter alone can tell: by one person at home, or by many persons into one range abroad."""
    extension = "150" if whose == "per_person" else str(200 + n)
    number = f"{AT_HOME if whose == 'per_person' else ABROAD}{n:04d}"
    if name == "same_number_per_hour":
        number = number[:-4] + "0000"
        await phone.pass_by(seconds=61)
    if name == "per_day":
        await phone.pass_by(minutes=61)
    made = await phone.click(extension, number)
    if made.state == State.RESERVED and name == "talk_minutes_per_day":
        await phone.talk(made, 10, over=n % 2 == 0)
    elif made.state == State.RESERVED and name != "concurrent":
        await phone.end(made)
    return made


@pytest.mark.parametrize("whose", ["per_person", "abroad"])
async def test_each_of_the_five_counters_stops_its_own_pattern_and_nobody_elses_work(whose: str, db: Database, database_url: str) -> None:
    owner = await asyncpg.connect(database_url)
    for name in Counters.model_fields:
        await owner.execute("delete from originate_requests; delete from calls")
        limit = 30 if name == "talk_minutes_per_day" else 3
        phone = await phone_with(db, owner, whose, name, limit)
        states = [(await abuse(phone, whose, name, n)).code for n in range(6)]
        assert states == [None] * 3 + [f"{whose}_{name}"] * 3, name
        honest = await phone.click("177", f"{AT_HOME}9999")
        assert honest.state == State.RESERVED, f"{name}: a colleague at home goes on working"
    await owner.close()


async def test_a_day_of_fraud_with_a_stolen_client_id_gets_what_the_defaults_allow_and_no_more(db: Database, database_url: str) -> None:
    owner, seeded = await asyncpg.connect(database_url), random.Random(5)
    rules = DialRules(allowed_prefixes=("+375", "+44"))
    phone = Phone(db, owner, rules)
    got: Counter[str] = Counter()
    refused: Counter[str | None] = Counter()
    extensions = [str(150 + n) for n in range(20)]
    for _ in range(48):
        for _ in range(12):
            made = await phone.click(seeded.choice(extensions), f"+4477009{seeded.randrange(10_000, 99_999)}")
            if made.state == State.RESERVED:
                got["+44770"] += 1
                await phone.talk(made, 4)
            else:
                refused[made.code] += 1
        await phone.pass_by(minutes=29)
    talked_s = await owner.fetchval("select sum(talk_seconds) from calls where started_at > now() - interval '1 day'")
    assert got["+44770"] <= rules.abroad.per_day + rules.abroad.per_minute, got
    assert talked_s <= (rules.abroad.talk_minutes_per_day + 2 * 4) * 60
    assert refused["abroad_per_day"] + refused["abroad_talk_minutes_per_day"] > 100
    assert (await phone.click("150", f"{AT_HOME}0001")).state == State.RESERVED, "the enterprise can still call its customers"
    await owner.close()


def test_a_range_abroad_is_a_country_and_the_beginning_of_its_numbers() -> None:
    assert range_abroad(PhoneNumber("+447700900123"), "BY") == "+44770"
    assert range_abroad(PhoneNumber("+375296254070"), "BY") is None
