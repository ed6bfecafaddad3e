"""Bytes to frames and actions to bytes: every chunking, every limit, every injection."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.ami.wire import (
    MAX_FRAME_BYTES,
    MAX_HEADERS,
    MAX_SKIP_BYTES,
    ActionError,
    Frame,
    FrameReader,
    Skipped,
    WireError,
    encode_action,
    escape_variable,
    read_banner,
    unescape,
)

EVENTS = (
    "Event: Newchannel\r\nPrivilege: call,all\r\nCallerIDName: Иван Петров\r\nUniqueid: 1.1\r\n\r\n"
    "Event: Newstate\r\nPrivilege: call,all\r\nCallerIDName: \r\nUniqueid: 1.1\r\n\r\n"
    "Response: Success\r\nActionID: a-1\r\nPing: Pong\r\n\r\n"
).encode()


def frames(*chunks: bytes) -> list[Frame | Skipped]:
    reader = FrameReader()
    return [item for chunk in chunks for item in reader.feed(chunk)]


def test_a_stream_split_at_every_byte_gives_the_same_frames() -> None:
    whole = frames(EVENTS)
    assert len(whole) == 3
    for at in range(1, len(EVENTS)):
        assert frames(EVENTS[:at], EVENTS[at:]) == whole
    assert frames(*[EVENTS[i : i + 1] for i in range(len(EVENTS))]) == whole


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_no_chunking_changes_what_is_read(sizes: list[int]) -> None:
    chunks, rest = [], EVENTS
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    assert frames(*chunks, rest) == frames(EVENTS)


def test_a_letter_split_over_two_packets_survives() -> None:
    at = EVENTS.index("ван".encode()) + 1
    first = frames(EVENTS[:at], EVENTS[at:])[0]
    assert isinstance(first, Frame)
    assert first.get("CallerIDName") == "Иван Петров"


def test_headers_are_found_in_any_case_and_an_empty_one_is_the_empty_string() -> None:
    frame = Frame(b"Event: X\r\nUniqueID: 7\r\nEmpty:\r\nNoSpace:v")
    assert (frame.get("uniqueid"), frame.get("Empty"), frame.get("NoSpace"), frame.get("Absent")) == ("7", "", "v", None)


def test_of_two_spellings_the_one_that_was_asked_for_is_found_first() -> None:
    frame = Frame(b"Event: X\r\nUNIQUEID: 1\r\nUniqueid: 2\r\nuniqueid: 3\r\nAccount: a")
    assert (frame.get("Uniqueid"), frame.get("uniqueid"), frame.get("uniqueID"), frame.get("ACCOUNT")) == ("2", "3", "1", "a")


NOISY = FrameReader(frozenset({b"RTCPSent"}))


@given(st.lists(st.sampled_from([b"RTCPSent", b"RTCPSentAgain", b"Hangup"]), max_size=20), st.integers(1, 30))
def test_noise_is_left_out_however_it_is_cut_and_nothing_else_is(names: list[bytes], size: int) -> None:
    stream = b"".join(b"Event: %s\r\nPrivilege: reporting,all\r\n\r\n" % name for name in names)
    read = [item for at in range(0, len(stream), size) for item in NOISY.feed(stream[at : at + size])]
    assert [item.event.encode() for item in read if isinstance(item, Frame)] == [name for name in names if name != b"RTCPSent"]


def test_an_event_that_is_glued_to_noise_is_not_left_out_with_it() -> None:
    read = NOISY.feed(b"Event: RTCPSent\r\nPrivilege: reporting,all\r\nTo: 1.2.3.4Event: Hangup\r\nPrivilege: call,all\r\nUniqueid: 18\r\n\r\n")
    assert [item.event if isinstance(item, Frame) else item.reason for item in read] == ["truncated", "Hangup"]


def test_a_repeated_header_gives_its_first_value_and_all_of_them_on_demand() -> None:
    frame = Frame(b"Event: X\r\nEvent: Y\r\nActionID: 1\r\nActionID: 2\r\nVariable: a\r\nvariable: b")
    assert (frame.event, frame.get("ActionID"), frame.get_all("Variable")) == ("X", "1", ["a", "b"])


def test_bare_cr_and_unicode_line_separators_stay_inside_a_value() -> None:
    frame = frames("Event: X\r\nCallerIDName: a\rb\u2028Uniqueid: 9\x85c\r\nUniqueid: 1\r\n\r\n".encode())[0]
    assert isinstance(frame, Frame)
    assert frame.get("Uniqueid") == "1"
    assert frame.get("CallerIDName") == "a\rb\u2028Uniqueid: 9\x85c"


def test_bytes_that_are_no_utf8_are_replaced_in_their_value_only() -> None:
    frame = frames(b"Event: X\r\nCallerIDName: \xc8\xe2\xe0\xed\r\nUniqueid: 1\r\n\r\n")[0]
    assert isinstance(frame, Frame)
    assert frame.get("Uniqueid") == "1"
    assert "\ufffd" in (frame.get("CallerIDName") or "")


def test_an_event_that_does_not_come_first_is_still_an_event() -> None:
    assert Frame(b"Privilege: call\r\nEvent: Hangup").event == "Hangup"


def test_ten_megabytes_without_an_end_are_skipped_with_bounded_memory_and_work() -> None:
    reader, started = FrameReader(), time.process_time()
    for _ in range(160):
        assert reader.feed(b"x" * 65_536) == []
    assert reader._size <= MAX_FRAME_BYTES
    items = reader.feed(b"\r\n\r\n" + EVENTS)
    assert isinstance(items[0], Skipped)
    assert items[0].reason == "oversize"
    assert len(items) == 4
    assert time.process_time() - started < 20


def test_a_whole_oversize_frame_in_one_chunk_is_skipped_too() -> None:
    items = frames(b"Event: X\r\nA: " + b"x" * (MAX_FRAME_BYTES + 1) + b"\r\n\r\n" + EVENTS)
    assert isinstance(items[0], Skipped)
    assert len(items) == 4


def test_a_frame_that_never_ends_is_given_up() -> None:
    reader = FrameReader()
    with pytest.raises(WireError, match="no end of message"):
        for _ in range(MAX_SKIP_BYTES // 1_000_000 + 2):
            reader.feed(b"x" * 1_000_000)


def test_five_thousand_headers_are_skipped() -> None:
    items = frames(b"Event: X\r\n" + b"".join(b"H%d: v\r\n" % i for i in range(5_000)) + b"\r\n" + EVENTS)
    assert items[0] == Skipped("headers", items[0].size_bytes)
    assert len(items) == 4
    assert MAX_HEADERS < 5_000


def test_an_event_glued_to_a_truncated_one_is_recovered_and_the_loss_is_told() -> None:
    items = frames(b"Event: Newchannel\r\nPrivilege: call,all\r\nUniqueid: 17Event: Newstate\r\nPrivilege: call,all\r\nUniqueid: 18\r\n\r\n")
    assert isinstance(items[0], Skipped)
    assert items[0].reason == "truncated"
    assert isinstance(items[1], Frame)
    assert (items[1].event, items[1].get("Uniqueid")) == ("Newstate", "18")


def test_a_variable_that_looks_like_an_event_is_no_event() -> None:
    items = frames(b"Event: VarSet\r\nPrivilege: dialplan,all\r\nVariable: X\r\nValue: Event: Hangup\r\nUniqueid: 1\r\n\r\n")
    assert [item.event for item in items if isinstance(item, Frame)] == ["VarSet"]


@given(st.binary(max_size=400))
def test_garbage_gives_frames_or_nothing_and_never_raises(data: bytes) -> None:
    for item in frames(data, b"\r\n\r\n"):
        if isinstance(item, Frame):
            item.get("Event")
            list(item.items())


def test_the_banner_is_one_line_glued_to_what_follows() -> None:
    assert read_banner(b"Asterisk Call Manager/11.0.0\r\nResponse: ") == ("11.0.0", b"Response: ")
    assert read_banner(b"Asterisk Call Man") is None


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 400", b"\x00\x01", b"Asterisk Call Manager" + b"x" * 300])
def test_another_protocol_is_told_by_its_greeting(data: bytes) -> None:
    with pytest.raises(WireError, match="not an Asterisk manager port"):
        read_banner(data)


@pytest.mark.parametrize("value", ["a\r\nAction: Command", "a\nb", "a\rb", "a\0b"])
def test_nothing_can_be_injected_into_an_action(value: str) -> None:
    with pytest.raises(ActionError, match="cannot be sent"):
        encode_action([("Action", "Originate"), ("Exten", value)])
    with pytest.raises(ActionError):
        encode_action([("Act" + value, "x")])


def test_over_long_values_and_too_many_lines_are_refused() -> None:
    with pytest.raises(ActionError, match="longer than"):
        encode_action([("Action", "x" * 1_000)])
    with pytest.raises(ActionError, match="lines"):
        encode_action([("Action", "x")] * 101)


@given(st.text(max_size=200))
def test_an_encoded_action_is_one_frame_with_exactly_its_headers(value: str) -> None:
    try:
        data = encode_action([("Action", "Ping"), ("Value", value)])
    except ActionError:
        return
    items = frames(data)
    assert len(items) == 1
    assert isinstance(items[0], Frame)
    assert data.count(b"\r\n\r\n") == 1
    assert items[0].raw.count(b"\r\n") == 1


def test_asterisks_escapes_are_undone() -> None:
    assert unescape(r"O\'Neil \"x\" a\\b \n") == 'O\'Neil "x" a\\b \n'


def test_variables_are_escaped_for_originate() -> None:
    assert escape_variable('a,b"c\\d') == 'a\\,b\\"c\\\\d'
