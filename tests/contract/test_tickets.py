"""Calls that become tickets, and the desk's adapter: what it plans, what it says, what it makes of answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Tenant
from adapters.http import Response
from adapters.tickets.client import Accepted, interpret, is_no_route
from adapters.tickets.config import TicketsSettings
from adapters.tickets.deliver import Tickets, wants_ticket
from adapters.tickets.inbound import BadTicket, read_legacy_message, read_legacy_ticket, read_message, read_status, read_ticket
from adapters.tickets.wording import summary_of
from daemon.model.call import Call, Direction, Result
from daemon.model.delivery import Ambiguous, AuthExpired, Rejected, Retry, Throttled
from daemon.model.signal import CallChange, Ended, RecordingAdded
from daemon.model.ticket import Side, TicketStatus
from daemon.store.pool import Database
from daemon.store.ticket_query import TicketFilter
from daemon.tickets.rules import after_call, is_later, place
from lab.crm.tickets import TicketSandbox
from tests.rig import NUMBER, Rig, a_call, rig

TENANT = Tenant(NUMBER, "Июнь", "Europe/Minsk", "BY")
ALL_CALLS = {"missed": True, "voicemail": True, "answered": True}


def settings(**more: Any) -> TicketsSettings:
    return TicketsSettings.model_validate({"role": "tma", "remote_url": "https://crm.example", "deploy_token": "t" * 12, **more})


def missed(**more: Any) -> Call:
    return a_call(result=Result.NO_ANSWER, answered_at=None, answered_by=None, last_talked=None, talk_seconds=0.0, **more)


def after(call: Call, **more: Any) -> Call:
    """An answered call of the same customer, later."""
    return a_call(started_at=call.started_at + 600, answered_at=call.started_at + 610, ended_at=call.started_at + 660, **more)


@pytest.fixture
async def crm() -> AsyncIterator[TicketSandbox]:
    box = TicketSandbox("crm")
    await box.start()
    yield box
    await box.stop()


def stored(crm: TicketSandbox, **more: Any) -> dict[str, Any]:
    return {"role": "tma", "remote_url": crm.url, "deploy_token": crm.token, **more}


async def conversation(r: Rig, number: int = 1) -> dict[str, Any]:
    assert r.desk is not None
    return await r.desk.tickets.get(NUMBER, number)


async def test_calls_of_a_customer_go_into_the_open_ticket_and_a_call_back_closes_it(crm: TicketSandbox, db: Database) -> None:
    async with rig(db, Tickets(), stored(crm, calls=ALL_CALLS)) as r:
        first, second = missed(), missed(started_at=1_763_701_900.0, ended_at=1_763_701_920.0)
        await r.record(first, Ended(()))
        await r.settled()
        await r.record(second, Ended(()))
        await r.settled()
        back = after(second, direction=Direction.OUT, initiator="150", answered_by="150", last_talked="150", recordings=("a.wav",))
        await r.record(back, Ended(()))
        await r.settled()
        ticket = await conversation(r)
        assert [(m["call"], m["about"]) for m in ticket["messages"]] == [
            (first.id, "ended"), (second.id, "ended"), *[(m["call"], m["about"]) for m in ticket["messages"][2:]],
        ]  # fmt: skip
        assert sorted(m["about"] for m in ticket["messages"][2:]) == ["called_back", "ended"]
        assert ticket["status"] == "closed"
        assert ticket["agent"] == "150"
        assert ticket["customer_phone"] == "+375296254070"
        assert len((await r.desk.tickets.page(NUMBER, TicketFilter()))[0]) == 1  # type: ignore[union-attr]
        [kept] = crm.tickets.values()
        assert kept.ticket["subject"].startswith("Пропущенный вызов: ООО «Восток, север»")
        assert [m["message"] for m in kept.messages] == [m["message"] for m in ticket["messages"]]
        assert kept.status == "closed"
        # The same changes again, as after a crash, change nothing.
        for call in (first, second, back):
            await r.record(call, Ended(()))
        await r.settled()
        assert await conversation(r) == ticket


async def test_a_conversation_is_moved_on_by_a_call_back_and_not_closed(crm: TicketSandbox, db: Database) -> None:
    async with rig(db, Tickets(), stored(crm, calls={"missed": True})) as r:
        assert r.desk is not None
        ticket, _ = await r.desk.open(NUMBER, "Код", "Не приходит", phone="+375296254070")
        call = missed()
        await r.record(call, Ended(()))
        await r.settled()
        await r.record(after(call), Ended(()))
        await r.settled()
        shown = await conversation(r, ticket["id"])
        assert [m["about"] for m in shown["messages"]] == [None, "ended", "called_back"]
        assert shown["status"] == "in_progress"
        assert await r.desk.tickets.agent_of(NUMBER, "+375296254070") == ("151", True)
        assert await r.desk.tickets.agent_of(NUMBER, "+375290000000") == (None, False)
        port = r.crm.port(NUMBER, "tickets")
        assert port is not None
        found = await port.responsible("+375296254070", 1.0, lambda *_: None)
        assert found is not None
        assert found.extension == "151"


async def test_the_recordings_go_along_as_links_that_are_made_when_they_are_handed_over(crm: TicketSandbox, db: Database) -> None:
    async with rig(db, Tickets(), stored(crm, calls=ALL_CALLS)) as r:
        call = a_call(recordings=("2026/one.wav",))
        await r.record(call, Ended(()))
        await r.settled()
        assert await r.attach(NUMBER, call.id, "2026/two.wav")
        r.dispatcher.wake(NUMBER, "tickets")
        await r.settled()
        shown = await conversation(r)
        assert [m["about"] for m in shown["messages"]] == ["ended", "recording"]
        assert "recordings" not in str(await r.outbox.list(NUMBER))  # no link is stored
        [kept] = crm.tickets.values()
        assert kept.messages[-1]["attachments"] == [
            {"name": "two.wav", "url": f"https://vochid.example/recordings/{call.id}-1.wav", "mime": "audio/wav", "size": 1_000}
        ]


def test_statuses_set_on_both_sides_at_once_end_up_the_same() -> None:
    assert is_later(5, Side.CRM, 5, Side.TMA)
    assert not is_later(5, Side.TMA, 5, Side.CRM)
    assert not is_later(5, Side.CRM, 5, Side.CRM)
    assert is_later(6, Side.TMA, 5, Side.CRM)
    assert place(None, 4) == (5, 5)
    assert place(2, 4) == (2, 4)
    assert place(9, 4) == (9, 9)


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(list(Side)), st.sampled_from(list(TicketStatus))), unique_by=lambda x: x[:2]), st.randoms())
def test_whatever_order_statuses_come_in_the_last_one_holds(told: list[tuple[int, Side, TicketStatus]], order: Any) -> None:
    def end(statuses: list[tuple[int, Side, TicketStatus]]) -> TicketStatus:
        sequence, by, known = -1, Side.TMA, TicketStatus.OPEN
        for one in statuses:
            if is_later(one[0], one[1], sequence, by):
                sequence, by, known = one
        return known

    mixed = list(told)
    order.shuffle(mixed)
    assert end(mixed) == end(told) == end(mixed + told)


def test_a_call_back_closes_only_what_nobody_wrote_in() -> None:
    assert after_call(TicketStatus.CLOSED, TicketStatus.OPEN, True) is TicketStatus.CLOSED
    assert after_call(TicketStatus.CLOSED, TicketStatus.OPEN, False) is TicketStatus.IN_PROGRESS
    assert after_call(TicketStatus.IN_PROGRESS, TicketStatus.CLOSED, True) is TicketStatus.CLOSED
    assert after_call(None, TicketStatus.OPEN, True) is TicketStatus.OPEN


def test_rules_come_before_the_switches_and_the_first_that_fits_decides() -> None:
    call, lost, voicemail = a_call(), missed(), missed(direction=Direction.IN)
    voicemail = replace(voicemail, result=Result.VOICEMAIL)
    assert not any(wants_ticket(c, settings()) for c in (call, lost, voicemail))
    assert [wants_ticket(c, settings(calls={"missed": True})) for c in (call, lost, voicemail)] == [False, True, False]
    assert [wants_ticket(c, settings(calls={"voicemail": True})) for c in (call, lost, voicemail)] == [False, False, True]
    assert [wants_ticket(c, settings(calls={"answered": True})) for c in (call, lost, voicemail)] == [True, False, False]
    quiet = settings(calls=ALL_CALLS, rules=[{"line": "+375171112233", "answered": False, "do": "nothing"}, {"known": True, "do": "ticket"}])
    assert [wants_ticket(c, quiet) for c in (call, lost, replace(lost, line="+375170000000"))] == [True, False, True]
    assert wants_ticket(lost, settings(rules=[{"answered": False, "do": "ticket"}]))
    assert not wants_ticket(replace(lost, customer_number=None), settings(calls=ALL_CALLS))
    assert wants_ticket(replace(voicemail, customer_number=None), settings(calls=ALL_CALLS))
    # Nobody dials a ticket for what our own people did not get through to.
    assert not wants_ticket(replace(lost, direction=Direction.OUT), settings(calls=ALL_CALLS))


def test_what_cdr_found_afterwards_and_what_is_switched_off_opens_no_ticket() -> None:
    change = CallChange(missed(), (Ended(()),), 5.0)
    chosen = settings(calls=ALL_CALLS)
    assert Tickets().plan(change, chosen, TENANT)
    assert not Tickets().plan(replace(change, late=True), chosen, TENANT)
    assert not Tickets().plan(change, settings(calls=ALL_CALLS, send={"journal": False}), TENANT)
    added = CallChange(a_call(recordings=("a", "b")), (RecordingAdded("b"),), 5.0)
    assert [p.payload for p in Tickets().plan(added, chosen, TENANT)] == [{"index": 1}]


@pytest.mark.parametrize("language", ["ru", "en"])
def test_the_summary_says_who_talked_how_long_and_when(language: str) -> None:
    text = summary_of(a_call(queue="sales"), language, "Europe/Minsk")
    for part in ("0:41", "151", "150, 151", "+375171112233", "sales", "0:07", "21.11.2025 08:10:00"):
        assert part in text
    for result in Result:
        assert summary_of(a_call(result=result), language, "UTC")


@pytest.mark.parametrize(
    ("status", "text", "wanted"),
    [
        (201, '{"id": 5}', Accepted("5")), (200, '{"data": {"id": "x"}}', Accepted("x", was_there=True)), (201, '{"ticket": {"id": 7}}', Accepted("7")),
        (204, "", Accepted(None)), (201, "{}", Accepted(None)), (409, '{"id": 5}', Accepted("5", was_there=True)), (200, '{"id": true}', Accepted(None, True)),
        (200, "<html>", Ambiguous), (429, "", Throttled), (500, "", Retry), (503, '{"detail": "x"}', Retry), (408, "", Retry), (401, "{}", AuthExpired),
        (403, "no", AuthExpired), (302, "", AuthExpired), (404, '{"code": "wrong_role"}', AuthExpired), (404, '{"detail": "no such ticket"}', Rejected),
        (422, '{"detail": [{"loc": "x"}]}', Rejected), (400, "[]", Rejected),
    ],
)  # fmt: skip
def test_what_an_answer_means(status: int, text: str, wanted: Any) -> None:
    found = interpret(Response(status, {"location": "x"}, text))
    assert found == wanted if isinstance(wanted, Accepted) else isinstance(found, wanted)


def test_a_missing_path_is_told_from_a_missing_ticket() -> None:
    assert is_no_route(Response(404, {}, '{"detail": "Not Found"}'))
    assert is_no_route(Response(404, {}, "<h1>404</h1>"))
    assert is_no_route(Response(405, {}, "{}"))
    assert not is_no_route(Response(404, {}, '{"detail": "no such ticket", "code": "unknown_ticket"}'))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
fields = st.dictionaries(
    st.sampled_from(
        ["external_ticket_id", "ticket_id", "subject", "theme", "message", "attachments", "external_url", "project", "sender", "external_message_id", "status",
         "sequence"]
    ),
    anything | st.just("0b9f3c52-6f0e-4f7e-9a3e-0d8f3a1c2b4d") | st.just("tma") | st.just("crm") | st.just("open"),
)  # fmt: skip


READERS: tuple[Callable[[Any, str | None], Any], ...] = (
    lambda body, _: read_ticket(body), lambda body, _: read_legacy_ticket(body), read_message, read_status,
    lambda body, _: read_legacy_message(body, Side.TMA),
)  # fmt: skip


@given(anything | fields, st.none() | st.text(), st.sampled_from(READERS))
def test_whatever_a_stranger_sends_is_read_or_refused_with_a_reason(body: Any, header: str | None, read: Callable[[Any, str | None], Any]) -> None:
    try:
        found = read(body, header)
    except BadTicket:
        return
    assert len(found.external_ticket_id) == 36


def test_a_legacy_attachment_may_be_a_bare_address() -> None:
    body = {"ticket_id": "0B9F3C52-6f0e-4f7e-9a3e-0d8f3a1c2b4d", "theme": "x", "message": "", "attachments": ["https://a.example/%D1%84.png"]}
    found = read_legacy_ticket(body)
    assert [(a.name, a.mime) for a in found.attachments] == [("ф.png", "image/png")]
    assert found.external_ticket_id == "0b9f3c52-6f0e-4f7e-9a3e-0d8f3a1c2b4d"
