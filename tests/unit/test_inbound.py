"""RetailCRM's webhooks and posted events, read from whatever a stranger sends. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.retailcrm.inbound import BadInbound, read_click, read_status, token_of
from daemon.calls.posted import Posted, PostedKind, apply, read_posted
from daemon.calls.view import PbxView
from daemon.errors import VochidError
from daemon.model.call import Call, Direction, Result
from daemon.model.crm import Click, StatusChange, UserStatus
from daemon.model.signal import Answered, Ended, RecordingAdded, Ringing, StoppedRinging

VIEW = PbxView("0367", "posted", internal_number=r"^1\d\d$", lines=("+375171112233",))


def test_a_click_and_a_status() -> None:
    pairs = [("clientId", " token "), ("userId", 19), ("phone", "+375"), ("code", ""), ("externalPhone", None), ("other", ["x"])]
    assert read_click(pairs) == Click("token", "+375", "19", None, None)
    assert read_click([*pairs, ("phone", "+375")]).phone == "+375"
    assert read_status([("clientId", "t"), ("code", "150"), ("status", "break")]) == StatusChange("t", UserStatus.BREAK, None, "150")
    assert token_of([("phone", {"a": 1}), ("clientId", "t")]) == "t"


@pytest.mark.parametrize(
    ("pairs", "field", "code"),
    [
        ([("userId", "19")], "phone", "missing_parameter"),
        ([("phone", "1")], "userId", "missing_parameter"),
        ([("phone", "1"), ("phone", "2"), ("userId", "1")], "phone", "repeated_parameter"),
        ([("phone", ["1"]), ("userId", "1")], "phone", "bad_parameter"),
        ([("phone", 1.5), ("userId", "1")], "phone", "bad_parameter"),
        ([("phone", True), ("userId", "1")], "phone", "bad_parameter"),
        ([("phone", "1"), ("userId", "1\r\n2")], "userId", "bad_parameter"),
        ([("phone", "1"), ("userId", 10**30)], "userId", "bad_parameter"),
        ([("phone", "1" * 256), ("userId", "1")], "phone", "bad_parameter"),
    ],
)
def test_what_is_wrong_is_named(pairs: list[tuple[str, Any]], field: str, code: str) -> None:
    with pytest.raises(BadInbound) as caught:
        read_click(pairs)
    assert (caught.value.field, caught.value.code) == (field, code)


JSON = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9) | st.just([1]) | st.just({"a": "b"})


@given(st.lists(st.tuples(st.sampled_from(["clientId", "phone", "userId", "code", "status", "x"]), JSON)))
def test_anything_is_a_click_or_a_clear_error(pairs: list[tuple[str, Any]]) -> None:
    for read in (read_click, read_status, token_of):
        try:
            read(pairs)
        except BadInbound:
            continue


# -- posted events --------------------------------------------------------------------------------------------------------------


def event(kind: str, **payload: Any) -> Posted:
    return read_posted({"event_type": kind, "payload": {"UniqueId": "u.1", **payload}}, "Europe/Minsk")


DIAL = {"Phone": "375296254070", "Extensions": ["150", 151], "Trunk": "375171112233", "CallType": 0, "StartTime": "2026-11-21 08:00:00"}
HANGUP = {**DIAL, "CallStatus": "2", "EndTime": "2026-11-21 08:01:00"}


def after(*events: Posted, at: float = 1_795_237_210.0) -> tuple[Call | None, list[list[Any]]]:
    call, signals = None, []
    for posted in events:
        change = apply(posted, call, VIEW, at)
        if change is not None:
            call = change.call
            signals.append(list(change.signals))
        else:
            signals.append([])
    return call, signals


def test_an_answered_incoming_call() -> None:
    bridge = event("bridge", CallerIDNum="375296254070", ConnectedLineNum="151", BridgeUniqueid="b")
    call, signals = after(event("dial", **DIAL), bridge, event("hangup", **HANGUP))
    assert call is not None
    assert signals == [[Ringing(("150", "151"))], [Answered("151"), StoppedRinging(("150",))], [Ended(("151",))]]
    assert (call.direction, call.customer_number, call.line, call.rang) == (Direction.IN, "+375296254070", "+375171112233", ("150", "151"))
    assert (call.result, call.answered_by, call.talk_seconds, call.wait_seconds, call.gap) == (Result.ANSWERED, "151", 50.0, 10.0, False)
    assert call.started_at == 1_795_237_200.0


def test_missed_incoming_and_an_outgoing_one() -> None:
    call, signals = after(event("dial", **DIAL), event("hangup", **{**HANGUP, "CallStatus": "0"}))
    assert call is not None
    assert (call.result, call.missed, signals[-1]) == (Result.NO_ANSWER, True, [Ended(("150", "151"))])
    out = {**DIAL, "CallType": "1", "Extensions": ["150"]}
    call, signals = after(event("dial", **out), event("dial", **out), event("bridge", CallerIDNum="150"), event("hangup", **{**HANGUP, **out}))
    assert call is not None
    assert signals == [[Ringing(("150",))], [], [Answered("150")], [Ended(("150",))]]
    assert (call.direction, call.initiator, call.rang, call.customer_number) == (Direction.OUT, "150", (), "+375296254070")
    call, signals = after(event("dial", **{**DIAL, "CallType": 2}), event("hangup", **{**HANGUP, "CallType": 2}))
    assert call is not None
    assert (call.direction, call.initiator, call.customer_number, signals[0]) == (Direction.INTERNAL, "150", "151", [])


def test_after_the_end_nothing_rings_and_a_download_adds_its_recording() -> None:
    call, signals = after(
        event("hangup", **HANGUP), event("dial", **DIAL), event("bridge", CallerIDNum="150"), event("download", **HANGUP, RecordingFile="u.1.wav"),
        event("download", **HANGUP, RecordingFile="u.1.wav"),
    )  # fmt: skip
    assert call is not None
    assert signals == [[Ended(())], [], [], [RecordingAdded("u.1.wav")], []]
    assert (call.recordings, call.gap, call.talk_seconds) == (("u.1.wav",), True, 60.0)
    call, signals = after(event("download", **HANGUP, RecordingFile="u.1.wav"))
    assert call is not None
    assert (call.result, call.recordings, signals) == (Result.ANSWERED, ("u.1.wav",), [[Ended(())]])


def test_times_that_go_backwards_make_no_negative_call() -> None:
    call, _ = after(event("hangup", **{**HANGUP, "EndTime": "2026-11-21 07:00:00"}))
    assert call is not None
    assert (call.talk_seconds, call.ended_at) == (0.0, call.started_at)


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"event_type": "dial"}, {"event_type": "dial", "payload": []}, {"event_type": "up", "payload": {"UniqueId": "u"}},
        {"event_type": "dial", "payload": {}}, {"event_type": ["dial"], "payload": {"UniqueId": "u"}},
        *({"event_type": "dial", "payload": {"UniqueId": "u", **wrong}} for wrong in (
            {"UniqueId": "x" * 200}, {"Extensions": "150"}, {"Extensions": ["15a"]}, {"Extensions": [["150"]]}, {"CallType": 7}, {"Phone": {"a": 1}},
            {"StartTime": "yesterday"}, {"StartTime": "0000-00-00 00:00:00"}, {"Phone": "1\n2"}, {"Extensions": ["1"] * 101},
        )),
    ],
)  # fmt: skip
def test_a_wrong_event_is_a_clear_error(body: Any) -> None:
    with pytest.raises(VochidError) as caught:
        read_posted(body, "Europe/Minsk")
    assert caught.value.field


KINDS = st.sampled_from(list(PostedKind))
NUMBERS = st.sampled_from(["150", "151", "+375296254070", "", None, "anonymous"])


@given(
    st.lists(
        st.builds(
            Posted, KINDS, st.just("u"), NUMBERS, st.lists(st.sampled_from(["150", "151"]), unique=True).map(tuple), NUMBERS,
            st.none() | st.sampled_from(Direction), st.none() | st.booleans(), st.none() | st.floats(1, 2e9), st.none() | st.floats(1, 2e9),
            st.lists(NUMBERS.filter(bool), max_size=2).map(tuple), st.none() | st.just("r.wav"),
        ),
        max_size=6,
    )
)  # fmt: skip
def test_events_in_any_order_end_once_and_close_every_popup_they_opened(events: list[Posted]) -> None:
    call, signals = after(*events)
    flat = [signal for group in signals for signal in group]
    assert sum(isinstance(signal, Ended) for signal in flat) <= 1
    opened = {number for signal in flat if isinstance(signal, Ringing) for number in signal.extensions}
    closed = {number for signal in flat if isinstance(signal, (Ended, StoppedRinging)) for number in signal.extensions}
    if call is not None and call.ended_at is not None:
        assert opened <= closed
        assert call.talk_seconds >= 0
        assert Call.from_json(call.to_json()).id == call.id
