"""What may be written into a record: texts, phones, dates, IMEIs, references; and whom a caller's number belongs to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import VochidError
from daemon.model.crm_record import FIELDS, REFERENCES, REQUIRED, KnownAs, RecordType
from daemon.model.phone import to_e164
from daemon.records.checks import MOST, checked, checked_key
from daemon.records.known import FRESH_S, MAX_KEPT, Callers, records_json

OBJECT, CONTRACT, USER, COMPANY = RecordType
JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def refused(kind: RecordType, sent: Any, before: Mapping[str, Any] | None = None) -> str | None:
    """The field of the refusal."""
    with pytest.raises(VochidError) as failed:
        checked(kind, sent, "BY", before)
    assert failed.value.code in ("bad_body", "bad_parameter", "too_long")
    return failed.value.field


@pytest.mark.parametrize(
    ("kind", "sent", "stored"),
    [
        (OBJECT, {"name": " Погрузчик "}, {"name": "Погрузчик", "description": None, "imei": None, "type": None, "contract_id": None}),
        (OBJECT, {"name": "x", "imei": "35-693803-564380-9", "description": "a\r\nb\tc"}, {"imei": "356938035643809", "description": "a\nb\tc"}),
        (OBJECT, {"name": "x", "imei": "123456789012345", "contract_id": 7}, {"imei": "123456789012345", "contract_id": 7}),
        (CONTRACT, {"number": "7/26", "starts_on": "2026-02-28", "ends_on": "2026-02-28"}, {"starts_on": "2026-02-28", "company_id": None}),
        (CONTRACT, {"number": "7/26", "starts_on": "2028-02-29"}, {"starts_on": "2028-02-29", "ends_on": None}),
        (USER, {"name": "Ирина Лис", "phone": "8 (029) 111-22-33", "email": "", "role": "бухгалтер"}, {"phone": "+375291112233", "email": None}),
        (USER, {"name": "x", "email": "anna.k+1@почта.бел"}, {"email": "anna.k+1@почта.бел"}),
        (COMPANY, {"name": "ООО «Восток, север»", "phone": "+7 495 123-45-67"}, {"name": "ООО «Восток, север»", "phone": "+74951234567"}),
    ],
)
def test_what_is_sent_becomes_what_is_stored(kind: RecordType, sent: Any, stored: dict[str, Any]) -> None:
    found = checked(kind, sent, "BY")
    assert set(found) == set(FIELDS[kind])
    assert {name: found[name] for name in stored} == stored


@pytest.mark.parametrize(
    ("kind", "sent", "field"),
    [
        (USER, [], None), (USER, "x", None), (USER, None, None), (USER, {}, "name"), (USER, {"name": None}, "name"), (USER, {"name": "  "}, "name"),
        (USER, {"name": 7}, "name"), (USER, {"name": ["x"]}, "name"), (USER, {"name": "a\nb"}, "name"), (USER, {"name": "a\0b"}, "name"),
        (USER, {"name": "a\u2028b"}, "name"), (USER, {"name": "x" * 256}, "name"), (USER, {"name": "x", "phon": "1"}, "phon"),
        (USER, {"name": "x", "id": 7}, "id"), (USER, {"name": "x", "phone": "12"}, "phone"), (USER, {"name": "x", "phone": "звонить"}, "phone"),
        (USER, {"name": "x", "email": "anna"}, "email"), (USER, {"name": "x", "email": "anna@localhost"}, "email"),
        (USER, {"name": "x", "email": "a b@example.com"}, "email"), (USER, {"name": "x", "email": "a@b@example.com"}, "email"),
        (USER, {"name": "x", "email": "a@example..com"}, "email"), (USER, {"name": "x", "email": "a" * 250 + "@b.by"}, "email"),
        (OBJECT, {"name": "x", "imei": "1234567890123"}, "imei"), (OBJECT, {"name": "x", "imei": "123456789012345678"}, "imei"),
        (OBJECT, {"name": "x", "imei": "12345678901234a"}, "imei"), (OBJECT, {"name": "x", "imei": "١٢٣٤٥٦٧٨٩٠١٢٣٤٥"}, "imei"),
        (OBJECT, {"name": "x", "contract_id": "7"}, "contract_id"), (OBJECT, {"name": "x", "contract_id": True}, "contract_id"),
        (OBJECT, {"name": "x", "contract_id": 0}, "contract_id"), (OBJECT, {"name": "x", "contract_id": 2**63}, "contract_id"),
        (OBJECT, {"name": "x", "contract_id": 7.0}, "contract_id"), (OBJECT, {"name": "x", "description": "a\x07"}, "description"),
        (CONTRACT, {"name": "x"}, "name"), (CONTRACT, {"number": ""}, "number"), (CONTRACT, {"number": "7", "starts_on": "2026-02-29"}, "starts_on"),
        (CONTRACT, {"number": "7", "starts_on": "20260201"}, "starts_on"), (CONTRACT, {"number": "7", "starts_on": "2026-W01-1"}, "starts_on"),
        (CONTRACT, {"number": "7", "starts_on": "0001-01-01"}, "starts_on"), (CONTRACT, {"number": "7", "starts_on": "2026-13-01"}, "starts_on"),
        (CONTRACT, {"number": "7", "starts_on": "2026-03-02", "ends_on": "2026-03-01"}, "ends_on"), (COMPANY, {"name": "x", "email": "a@b.by"}, "email"),
    ],
)  # fmt: skip
def test_a_refusal_names_its_field(kind: RecordType, sent: Any, field: str | None) -> None:
    assert refused(kind, sent) == field


def test_a_change_holds_what_was_sent_and_is_judged_with_the_rest() -> None:
    before = {"number": "7/26", "starts_on": "2026-03-01", "ends_on": None, "company_id": 3}
    assert checked(CONTRACT, {"company_id": None}, "BY", before) == {"company_id": None}
    assert checked(CONTRACT, {}, "BY", before) == {}
    assert checked(CONTRACT, {"ends_on": "2026-03-01"}, "BY", before) == {"ends_on": "2026-03-01"}
    assert refused(CONTRACT, {"ends_on": "2026-02-28"}, before) == "ends_on"
    assert refused(CONTRACT, {"number": None}, before) == "number"
    assert checked(CONTRACT, {"starts_on": None, "ends_on": "2026-02-28"}, "BY", before) == {"starts_on": None, "ends_on": "2026-02-28"}


@given(st.sampled_from(RecordType), st.dictionaries(st.sampled_from(sorted({name for names in FIELDS.values() for name in names})) | st.text(), JSON) | JSON)
def test_whatever_is_sent_is_a_record_that_can_be_stored_or_a_refusal(kind: RecordType, sent: Any) -> None:
    try:
        found = checked(kind, sent, "BY")
    except VochidError:
        return
    assert set(found) == set(FIELDS[kind])
    assert found[REQUIRED[kind]]
    for name, value in found.items():
        if name in REFERENCES:
            assert value is None or 0 < value < 2**63
        elif value is not None:
            assert 0 < len(value) <= MOST.get(name, 10)
            assert value == value.strip()
            json.dumps(value, ensure_ascii=False).encode()
            assert "\0" not in value
    assert checked(kind, found, "BY") == found  # what was stored may be sent again
    assert checked(kind, found, "BY", found) == found


@given(st.dates(date(1900, 1, 1), date(2199, 12, 31)), st.dates(date(1900, 1, 1), date(2199, 12, 31)))
def test_a_contract_does_not_end_before_it_starts(starts: date, ends: date) -> None:
    sent = {"number": "1", "starts_on": starts.isoformat(), "ends_on": ends.isoformat()}
    if starts <= ends:
        assert checked(CONTRACT, sent, "BY")["ends_on"] == ends.isoformat()
    else:
        assert refused(CONTRACT, sent) == "ends_on"


@given(st.from_regex(r"\+?[0-9 ()-]{5,18}", fullmatch=True))
def test_a_phone_is_stored_as_calls_have_it_or_refused(text: str) -> None:
    if (number := to_e164(text, "BY")) is not None:
        assert checked(USER, {"name": "x", "phone": text}, "BY")["phone"] == number
    elif text.strip():
        assert refused(USER, {"name": "x", "phone": text}) == "phone"


@pytest.mark.parametrize(("key", "is_good"), [(None, True), ("a" * 200, True), ("a" * 201, False), ("", False), (" ", False), (7, False), ("a\nb", False)])
def test_an_idempotency_key_is_a_short_text(key: Any, is_good: bool) -> None:
    if is_good:
        assert checked_key(key) == key
    else:
        with pytest.raises(VochidError, match="idempotency_key"):
            checked_key(key)


# -- whose number it is ----------------------------------------------------------------------------------------------------------

ANNA, EAST = KnownAs(USER, 1, "Анна"), KnownAs(COMPANY, 2, "Восток")
NUMBER = "+375296254070"


class Stored:
    """Records in memory; counts what is asked."""

    def __init__(self, **known: Sequence[KnownAs]) -> None:
        self.known: dict[str, Sequence[KnownAs]] = {NUMBER: [ANNA, EAST], **known}
        self.asked: list[Sequence[str]] = []
        self.gate: asyncio.Event | None = None

    async def find(self, enterprise: str, numbers: Sequence[str]) -> Mapping[str, Sequence[KnownAs]]:
        self.asked.append(numbers)
        if self.gate is not None:
            await self.gate.wait()
        return {number: self.known[number] for number in numbers if number in self.known}


class Told:
    """What CRMs and past calls call numbers, and which were asked for."""

    def __init__(self, **names: str) -> None:
        self.by_number = {f"+{number[1:]}": name for number, name in names.items()}
        self.asked: list[set[str]] = []

    def known_names(self, enterprise: str, numbers: Iterable[str]) -> dict[str, str]:
        self.asked.append(set(numbers))
        return {number: self.by_number[number] for number in numbers if number in self.by_number}

    async def names(self, enterprise: str, numbers: Collection[str]) -> dict[str, str]:
        return self.known_names(enterprise, numbers)


def call(number: str | None, name: str | None = None) -> dict[str, Any]:
    return {"customer_number": number, "customer_name": name, "direction": "in"}


async def test_a_call_without_a_name_gets_that_of_its_number_and_no_other_is_touched() -> None:
    stored = Stored()
    calls = [call(NUMBER), call(NUMBER, "с АТС"), call("+375291111111"), call(None), call("150")]
    known = await Callers(stored, Told(), Told()).name("0367", calls)
    assert [one["customer_name"] for one in calls] == ["Анна", "с АТС", None, None, None]
    assert stored.asked == [["+375291111111", NUMBER]]
    assert records_json(known, calls[1]) == [
        {"type": "user", "kind": "users", "id": 1, "name": "Анна"}, {"type": "company", "kind": "companies", "id": 2, "name": "Восток"},
    ]  # fmt: skip
    assert records_json(known, calls[3]) == []


async def test_people_see_the_record_then_what_a_crm_said_then_the_name_of_the_calls_before() -> None:
    now, crm, past = [0.0], Told(n375291111111="из CRM"), Told(n375291111111="прежнее", n375292222222="прежнее")
    callers = Callers(Stored(), crm, past, lambda: now[0])
    calls = [call(NUMBER), call(NUMBER, "с АТС"), call("+375291111111"), call("+375292222222"), call("+375293333333"), call(None)]
    await callers.name_for_people("0367", calls)
    assert [one["customer_name"] for one in calls] == ["Анна", "с АТС", "из CRM", "прежнее", None, None]
    assert past.asked == [{"+375292222222", "+375293333333"}]  # what a CRM said is at hand; the database is asked for the others alone
    colleague = {**call("+375292222222"), "direction": "internal"}
    await callers.name_for_people("0367", [colleague])
    assert colleague["customer_name"] is None

    crm.by_number["+375293333333"] = "узнали"  # an answer of a CRM shows at once, what the database told is kept for a moment
    shown = await callers.live("0367", call("+375293333333"))
    assert (shown["customer_name"], shown["records"]) == ("узнали", [])
    assert (await callers.live("0367", call("+375292222222")))["customer_name"] == "прежнее"
    assert len(past.asked) == 1
    callers.forget_names({"0367"})
    past.by_number.clear()
    assert (await callers.live("0367", call("+375292222222")))["customer_name"] is None


async def test_what_was_read_is_kept_for_a_moment_and_until_a_record_changes() -> None:
    now, stored = [0.0], Stored()
    callers = Callers(stored, Told(), Told(), lambda: now[0])
    for at in (0.0, FRESH_S - 0.1, FRESH_S):
        now[0] = at
        assert await callers.find("0367", [NUMBER]) == {NUMBER: [ANNA, EAST]}
    assert len(stored.asked) == 2
    callers.forget("0400")
    await callers.find("0367", [NUMBER])
    assert len(stored.asked) == 2
    stored.known = {}
    callers.forget("0367")
    assert await callers.find("0367", [NUMBER]) == {}


async def test_a_hundred_boards_read_a_number_once_and_what_changes_meanwhile_is_read_anew() -> None:
    stored = Stored()
    stored.gate = asyncio.Event()
    callers = Callers(stored, Told(), Told())
    boards = [asyncio.ensure_future(callers.find("0367", [NUMBER])) for _ in range(100)]
    while not stored.asked:
        await asyncio.sleep(0)
    callers.forget("0367")
    stored.gate.set()
    assert all(found == {NUMBER: [ANNA, EAST]} for found in await asyncio.gather(*boards))
    assert len(stored.asked) == 1
    stored.known = {}
    assert await callers.find("0367", [NUMBER]) == {}


async def test_the_numbers_that_are_kept_are_bounded() -> None:
    stored = Stored()
    callers = Callers(stored, Told(), Told())
    await callers.find("0367", [f"+3752900{n:05}" for n in range(MAX_KEPT)])
    await callers.find("0367", [NUMBER])
    assert len(callers._records) == MAX_KEPT
    assert max(map(len, stored.asked)) <= 500


async def test_a_live_call_does_not_wait_long_for_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Stored()
    shown = await Callers(stored, Told(), Told()).live("0367", call(NUMBER))
    assert (shown["customer_name"], [one["id"] for one in shown["records"]]) == ("Анна", [1, 2])
    stored.gate = asyncio.Event()
    monkeypatch.setattr("daemon.records.known.LIVE_DEADLINE_S", 0.01)
    sent = call(NUMBER)
    assert await Callers(stored, Told(), Told()).live("0367", sent) == {**call(NUMBER), "records": []}
    assert sent == call(NUMBER)
