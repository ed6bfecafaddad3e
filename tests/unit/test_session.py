"""The session as a dialogue: bytes in, outputs out, time given."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.ami.actions import CoreShowChannels, Ping
from daemon.ami.session import (
    GREETING_DEADLINE_S,
    LOGIN_DEADLINE_S,
    PING_AFTER_S,
    PONG_DEADLINE_S,
    ActionFailed,
    Answered,
    Broken,
    LoggedIn,
    Refused,
    RefusedFor,
    Session,
    State,
    Unseen,
    Write,
)
from daemon.ami.wire import Frame, FrameReader

SECRET = "секрет"
BANNER = b"Asterisk Call Manager/11.0.0\r\n"


@pytest.fixture(scope="module", autouse=True)
def patience() -> None:
    """None: the deadlines themselves are tried here, by a clock of the test's own."""


def sent(outputs: list[object]) -> list[Frame]:
    data = b"".join(output.data for output in outputs if isinstance(output, Write))
    return [frame for frame in FrameReader().feed(data) if isinstance(frame, Frame)]


def message(*headers: tuple[str, str]) -> bytes:
    return "".join(f"{key}: {value}\r\n" for key, value in headers).encode() + b"\r\n"


def logged_in(now: float = 0.0) -> Session:
    session = Session("vochid", SECRET, "abc", now)
    challenge = sent(session.receive(BANNER, now))[0]
    login = sent(session.receive(message(("Response", "Success"), ("ActionID", challenge.get("ActionID") or ""), ("Challenge", "123")), now))[0]
    assert session.receive(message(("Response", "Success"), ("ActionID", login.get("ActionID") or "")), now) == [LoggedIn("11.0.0")]
    return session


def test_it_logs_in_with_the_answer_to_a_challenge_and_never_sends_the_secret() -> None:
    session = Session("vochid", SECRET, "abc", 0.0)
    challenge = sent(session.receive(BANNER, 0.0))[0]
    assert (challenge.get("Action"), challenge.get("AuthType")) == ("Challenge", "MD5")
    outputs = session.receive(message(("Response", "Success"), ("ActionID", challenge.get("ActionID") or ""), ("Challenge", "123")), 0.0)
    login = sent(outputs)[0]
    assert login.get("Key") == hashlib.md5(("123" + SECRET).encode()).hexdigest()
    assert login.get("Events") == "system,call,agent,dialplan"
    assert SECRET.encode() not in login.raw


def test_it_falls_back_to_a_plain_login_where_challenges_are_refused() -> None:
    session = Session("vochid", SECRET, "abc", 0.0)
    challenge = sent(session.receive(BANNER, 0.0))[0]
    login = sent(session.receive(message(("Response", "Error"), ("ActionID", challenge.get("ActionID") or "")), 0.0))[0]
    assert login.get("Secret") == SECRET


@pytest.mark.parametrize(("text", "reason"), [("Authentication failed", RefusedFor.CREDENTIALS), ("Login Already In Use", RefusedFor.ALREADY_IN_USE)])
@pytest.mark.parametrize("with_id", [True, False])
def test_a_refused_login_says_why_and_ends_the_session(text: str, reason: RefusedFor, with_id: bool) -> None:
    session = Session("vochid", SECRET, "abc", 0.0)
    challenge = sent(session.receive(BANNER, 0.0))[0]
    login = sent(session.receive(message(("Response", "Success"), ("ActionID", challenge.get("ActionID") or ""), ("Challenge", "1")), 0.0))[0]
    identity = [("ActionID", login.get("ActionID") or "")] if with_id else []
    assert session.receive(message(("Response", "Error"), *identity, ("Message", text)), 0.0) == [Refused(reason, text)]
    assert session.state is State.CLOSED


def test_a_peer_that_does_not_greet_or_does_not_answer_the_login_is_left() -> None:
    assert isinstance(Session("u", "s", "p", 0.0).tick(GREETING_DEADLINE_S)[0], Broken)
    session = Session("u", "s", "p", 0.0)
    session.receive(BANNER, 1.0)
    assert session.tick(LOGIN_DEADLINE_S) == []
    assert isinstance(session.tick(1.0 + LOGIN_DEADLINE_S)[0], Broken)


def test_another_protocol_breaks_the_session() -> None:
    assert isinstance(Session("u", "s", "p", 0.0).receive(b"SSH-2.0-x\r\n", 0.0)[0], Broken)


def test_an_answer_finds_its_action_between_events() -> None:
    session = logged_in()
    action_id, _ = session.send(Ping(), 0.0)
    event = message(("Event", "Hangup"), ("Uniqueid", "1"))
    outputs = session.receive(event + message(("Response", "Success"), ("ActionID", action_id), ("Ping", "Pong")) + event, 0.0)
    assert [type(output) for output in outputs] == [Frame, Answered, Frame]


def test_a_list_is_answered_once_with_all_its_items() -> None:
    session = logged_in()
    action_id, _ = session.send(CoreShowChannels(), 0.0)
    identity = ("ActionID", action_id)
    assert session.receive(message(("Response", "Success"), identity, ("EventList", "start")), 0.0) == []
    assert session.receive(message(("Event", "CoreShowChannel"), identity, ("Uniqueid", "1")), 0.0) == []
    [answered] = session.receive(message(("Event", "CoreShowChannelsComplete"), identity, ("EventList", "Complete")), 0.0)
    assert isinstance(answered, Answered)
    assert [item.get("Uniqueid") for item in answered.answer.items] == ["1"]


def test_a_list_action_that_is_refused_is_answered_at_once() -> None:
    session = logged_in()
    action_id, _ = session.send(CoreShowChannels(), 0.0)
    [answered] = session.receive(message(("Response", "Error"), ("ActionID", action_id), ("Message", "Permission denied")), 0.0)
    assert isinstance(answered, Answered)
    assert not answered.answer.ok


def test_answers_and_events_of_other_clients_are_not_ours() -> None:
    session = logged_in()
    session.send(Ping(), 0.0)
    assert session.receive(message(("Response", "Success"), ("ActionID", "1")), 0.0) == []
    [event] = session.receive(message(("Event", "OriginateResponse"), ("ActionID", "other-1"), ("Response", "Failure")), 0.0)
    assert isinstance(event, Frame)


def test_every_action_in_flight_ends_when_the_connection_does() -> None:
    session = logged_in()
    ping, _ = session.send(Ping(), 0.0)
    listed, _ = session.send(CoreShowChannels(), 0.0)
    session.receive(message(("Response", "Success"), ("ActionID", listed), ("EventList", "start")), 0.0)
    assert session.lost() == [ActionFailed(ping, "lost"), ActionFailed(listed, "lost")]
    assert session.lost() == []


def test_an_action_without_an_answer_times_out() -> None:
    session = logged_in()
    action_id, _ = session.send(Ping(), 0.0, deadline_s=3.0)
    assert session.tick(2.9) == []
    assert session.tick(3.0) == [ActionFailed(action_id, "timeout")]


def test_silence_is_pinged_and_a_dead_peer_is_found_within_25_seconds() -> None:
    session = logged_in()
    assert session.tick(PING_AFTER_S - 0.1) == []
    [ping] = sent(session.tick(PING_AFTER_S))
    assert ping.get("Action") == "Ping"
    [broken] = session.tick(PING_AFTER_S + PONG_DEADLINE_S)
    assert isinstance(broken, Broken)
    assert PING_AFTER_S + PONG_DEADLINE_S <= 25


def test_any_byte_counts_as_life() -> None:
    session = logged_in()
    session.tick(PING_AFTER_S)
    session.receive(b"Event: X\r\n", PING_AFTER_S + PONG_DEADLINE_S - 1)
    assert not any(isinstance(output, Broken) for output in session.tick(PING_AFTER_S + PONG_DEADLINE_S))


def test_a_session_says_when_it_has_something_to_do_and_then_has() -> None:
    new = Session("u", "s", "p", 0.0)
    assert new.due_in(1.0) == GREETING_DEADLINE_S - 1.0
    session = logged_in()
    assert session.due_in(4.0) == PING_AFTER_S - 4.0
    session.send(Ping(), 4.0, deadline_s=3.0)
    assert session.due_in(5.0) == 2.0
    assert session.tick(7.0)
    session.receive(b"Event: X\r\n\r\n", 8.0)
    assert session.due_in(8.0) == PING_AFTER_S
    now = 8.0 + PING_AFTER_S
    assert sent(session.tick(now))
    assert session.due_in(now) == PONG_DEADLINE_S
    session.receive(b"Event: X\r\n\r\n", now + 1.0)  # not the answer, but a sign of life
    assert session.tick(now + PONG_DEADLINE_S) == []
    assert session.due_in(now + PONG_DEADLINE_S) == 1.0


@given(st.lists(st.tuples(st.sampled_from(["hear", "send", "tick"]), st.integers(0, 60)), max_size=30))
def test_nothing_is_due_before_it_is_said_to_be(steps: list[tuple[str, int]]) -> None:
    session, now = logged_in(), 0.0
    for step, quarters in steps:
        pause = quarters / 4
        due_at = now + session.due_in(now)
        if step == "tick":  # as its clock does: just before what is due there is nothing, at that moment it is done with
            if due_at - now > 2e-3:
                assert session.tick(due_at - 1e-3) == []
            now = max(now, due_at)
            session.tick(now)
            if session.state is State.CLOSED:
                return
            assert session.due_in(now) > 0
            continue
        now = min(now + pause, due_at)
        if step == "hear":
            session.receive(b"Event: X\r\n\r\n", now)
        else:
            session.send(Ping(), now, deadline_s=pause + 0.25)


def test_an_awaited_ping_leaves_nothing_behind() -> None:
    session = logged_in()
    now = 0.0
    for _ in range(100):
        now += PING_AFTER_S
        [ping] = sent(session.tick(now))
        session.receive(message(("Response", "Success"), ("ActionID", ping.get("ActionID") or ""), ("Ping", "Pong")), now)
    assert not session._pending


def test_a_skipped_frame_is_told() -> None:
    session = logged_in()
    outputs = session.receive(b"Event: X\r\n" + b"H: v\r\n" * 2_000 + b"\r\n", 0.0)
    assert isinstance(outputs[0], Unseen)


def test_frames_with_doubled_event_and_action_id_headers_do_no_harm() -> None:
    session = logged_in()
    outputs = session.receive(b"Event: A\r\nEvent: B\r\nActionID: 1\r\nActionID: 2\r\nMessage: x\r\nMessage: y\r\n\r\n", 0.0)
    assert [type(output) for output in outputs] == [Frame]


def test_an_originate_response_is_not_taken_for_the_end_of_a_list() -> None:
    session = logged_in()
    action_id, _ = session.send(CoreShowChannels(), 0.0)
    session.receive(message(("Response", "Success"), ("ActionID", action_id)), 0.0)
    [event] = session.receive(message(("Event", "OriginateResponse"), ("ActionID", "zz"), ("Response", "Success")), 0.0)
    assert isinstance(event, Frame)


def test_action_ids_are_random_per_connection_and_short() -> None:
    session = logged_in()
    action_id, _ = session.send(Ping(), 0.0)
    assert action_id.startswith("abc-")
    assert len(action_id) <= 64


def test_a_list_that_begins_well_and_then_fails_is_answered_with_the_failure() -> None:
    session = logged_in()
    action_id, _ = session.send(CoreShowChannels(), 0.0)
    session.receive(message(("Response", "Success"), ("ActionID", action_id), ("EventList", "start")), 0.0)
    [answered] = session.receive(message(("Response", "Error"), ("ActionID", action_id), ("Message", "No such channel")), 0.0)
    assert isinstance(answered, Answered)
    assert answered.answer.message == "No such channel"


def test_events_glued_to_the_greeting_or_sent_before_the_login_do_no_harm() -> None:
    session = Session("vochid", SECRET, "abc", 0.0)
    outputs = session.receive(BANNER + message(("Event", "FullyBooted")) + message(("Response", "Success"), ("ActionID", "x")), 0.0)
    assert [frame.get("Action") for frame in sent(outputs)] == ["Challenge"]
    assert not any(isinstance(output, Frame) for output in outputs)


def test_a_list_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.ami.session.MAX_LIST_ITEMS", 3)
    session = logged_in()
    action_id, _ = session.send(CoreShowChannels(), 0.0)
    items = b"".join(message(("Event", "CoreShowChannel"), ("ActionID", action_id)) for _ in range(4))
    assert session.receive(items, 0.0) == [ActionFailed(action_id, "too_long")]
