"""The call model under stress: properties over recorded traffic, and what recordings do not show."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.ami.wire import Frame, FrameReader
from daemon.calls.correlator import MAX_CHANNELS, Correlator
from daemon.calls.replay import JsonEvent, TraceError, read_trace, replay
from daemon.calls.rules import call_id
from daemon.model.call import Call, Direction, Result
from daemon.model.signal import Answered, CallChange, Ended, Ringing, StoppedRinging
from tests.golden.view import VIEW

GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = tuple(sorted(folder.parent.name for folder in GOLDEN.glob("*/scenario.json") if folder.parent.name != "twenty-at-once"))


def events_of(name: str) -> list[tuple[Any, float]]:
    trace = GOLDEN / name / "asterisk-22.ami"
    return list(read_trace(trace.name, trace.read_bytes(), trace.with_name(trace.name + ".json").read_bytes()))


RECORDED = {name: events_of(name) for name in NAMES}


class Renamed:
    """An event of the same call on another day, by another customer: every identity is changed, nothing else."""

    def __init__(self, event: Any, mark: str) -> None:
        self._event, self._mark, self.event = event, mark, event.event

    def get(self, header: str, /) -> str | None:
        value = self._event.get(header)
        if value and header.lower().endswith(("uniqueid", "linkedid")):
            return f"{self._mark}{value}"
        return value and value.replace("+37529625", f"+3752962{self._mark[0]}")


def summary(calls: Iterable[Call]) -> list[Any]:
    return sorted(
        [(c.direction, c.customer_number, c.result, c.rang, c.answered_by, c.last_talked, round(c.talk_seconds, 2), len(c.legs)) for c in calls],
        key=repr,
    )


def changes_of(name: str) -> list[CallChange]:
    model = Correlator(VIEW)
    return [change for event, at in RECORDED[name] for change in model.feed(event, at)]


def interleaved(names: list[str], rng: random.Random) -> tuple[list[Any], list[Any]]:
    """What the records are and what they should be when these calls' events arrive mixed. Each call's own times count, and only those."""
    streams = [[(Renamed(event, f"{i}-"), at - RECORDED[name][0][1] + 1_000_000) for event, at in RECORDED[name]] for i, name in enumerate(names)]
    order = [i for i, stream in enumerate(streams) for _ in stream]
    rng.shuffle(order)
    waiting = [iter(stream) for stream in streams]
    found = replay(iter([next(waiting[i]) for i in order]), VIEW)
    expected = [call for stream in streams for call in replay(iter(stream), VIEW)]
    return [s[:6] for s in summary(found)], [s[:6] for s in summary(expected)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_independent_calls_give_the_same_records_however_they_interleave(names: list[str], rng: random.Random) -> None:
    found, expected = interleaved(names, rng)
    assert found == expected


@pytest.mark.parametrize("other", ["blonde-by-keys-returned", "click-manager-absent"])
def test_a_phone_that_is_called_back_for_a_transfer_is_not_mistaken_when_two_calls_want_it(other: str) -> None:
    for seed in range(30):
        found, expected = interleaved(["blonde-by-keys-returned", "blonde-by-keys-returned", other], random.Random(seed))
        assert found == expected, seed


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.randoms(use_true_random=False))
def test_duplicated_and_dropped_noise_changes_nothing(name: str, rng: random.Random) -> None:
    noisy = []
    for event, at in RECORDED[name]:
        if event.event in ("NewConnectedLine", "HangupRequest", "SoftHangupRequest", "AgentCalled", "BridgeCreate") and event.event != "HangupRequest":
            if rng.random() < 0.5:
                continue
            noisy.append((event, at))
        noisy.append((event, at))
        if event.event in ("DialEnd", "DialState", "Newstate", "Hangup", "BridgeEnter", "BridgeLeave", "LocalBridge") and rng.random() < 0.3:
            noisy.append((event, at))
    assert summary(replay(iter(noisy), VIEW)) == summary(replay(iter(RECORDED[name]), VIEW))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.sampled_from(("asterisk-16.ami", "asterisk-22.ami")), st.lists(st.integers(1, 3_000), min_size=1, max_size=30))
def test_the_cutting_of_the_stream_changes_nothing(name: str, version: str, sizes: list[int]) -> None:
    data, reader, frames, at = (GOLDEN / name / version).read_bytes(), FrameReader(), [], 0
    for n in range(len(data)):
        if at >= len(data):
            break
        frames += reader.feed(data[at : at + sizes[n % len(sizes)]])
        at += sizes[n % len(sizes)]
    whole = read_trace(version, data, None)
    assert summary(replay(((frame, 0.0) for frame in frames if isinstance(frame, Frame) and frame.event), VIEW)) == summary(replay(whole, VIEW))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.sampled_from(("DialBegin", "DialEnd", "DialState")), st.randoms(use_true_random=False))
def test_unpaired_dials_do_not_change_who_talked(name: str, kind: str, rng: random.Random) -> None:
    whole, holes = RECORDED[name], [(event, at) for event, at in RECORDED[name] if event.event != kind or rng.random() < 0.5]
    talked = [call.last_talked for call in replay(iter(whole), VIEW) if call.direction is Direction.IN]
    assert [call.last_talked for call in replay(iter(holes), VIEW) if call.direction is Direction.IN] == talked


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.randoms(use_true_random=False))
def test_no_order_and_no_loss_of_events_makes_the_model_raise(name: str, rng: random.Random) -> None:
    events = [item for item in RECORDED[name] if rng.random() < 0.8]
    rng.shuffle(events)
    for call in replay(iter(events), VIEW):
        json.dumps(call.to_json())


HEADERS = st.sampled_from(
    ["Uniqueid", "Linkedid", "DestUniqueid", "DestLinkedid", "Channel", "DestChannel", "ChannelState", "BridgeUniqueid", "LocalOneUniqueid",
     "LocalTwoUniqueid", "Exten", "Context", "CallerIDNum", "CallerIDName", "DialStatus", "Cause", "Variable", "Value", "Queue", "SwapUniqueid",
     "ToBridgeUniqueid", "FromBridgeUniqueid", "Application", "Data", "Forward", "Newname"]
)  # fmt: skip
KINDS = st.sampled_from(sorted(Correlator(VIEW)._handlers))
HOSTILE = st.one_of(st.text(max_size=12), st.sampled_from(["1", "2", "3", "PJSIP/150-1", "PJSIP/provider-2", "Local/1@x-1;1", "6", "", "99999999999999999999"]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(KINDS, st.dictionaries(HEADERS, HOSTILE, max_size=10), st.floats(0, 1e9)), max_size=40))
def test_no_event_makes_the_model_raise(events: list[tuple[str, dict[str, str], float]]) -> None:
    model = Correlator(VIEW)
    for kind, headers, at in events:
        for change in model.feed(JsonEvent({"Event": kind, **headers}), at):
            json.dumps(change.call.to_json())
    model.tick(2e9)


def event(kind: str, **headers: str) -> JsonEvent:
    return JsonEvent({"Event": kind, **headers})


def arriving(uniqueid: str, **more: str) -> JsonEvent:
    base = {
        "Channel": f"PJSIP/provider-{uniqueid}", "ChannelState": "4", "CallerIDNum": "+375296254070", "Context": "from-trunk",
        "Exten": "+375171112230", "Uniqueid": uniqueid, "Linkedid": uniqueid,
    }  # fmt: skip
    return event("Newchannel", **{**base, **more})


def test_a_popup_opens_for_whom_rings_and_closes_for_the_loser_before_the_end() -> None:
    signals = [signal for change in changes_of("ring-group") for signal in change.signals]
    rung = [extension for signal in signals if isinstance(signal, Ringing) for extension in signal.extensions]
    assert sorted(rung) == ["150", "151"]
    assert StoppedRinging(("150",)) in signals
    assert signals[-1] == Ended(("151",))
    assert Answered("151") in signals


def test_every_popup_that_opens_closes_exactly_once() -> None:
    for name in NAMES:
        opened: list[tuple[str, str]] = []
        for change in changes_of(name):
            for signal in change.signals:
                if isinstance(signal, Answered):
                    continue
                popups = [(change.call.id, extension) for extension in signal.extensions]
                if isinstance(signal, Ringing):
                    assert not set(opened) & set(popups)
                    opened += popups
                else:
                    for popup in popups:
                        opened.remove(popup)
        assert opened == [], name


def test_an_outgoing_popup_goes_to_who_dialled_once_the_customer_is_dialled() -> None:
    [ringing] = [signal for change in changes_of("outbound-answered") for signal in change.signals if isinstance(signal, Ringing)]
    assert ringing == Ringing(("151",))


def test_a_call_is_told_when_it_begins_and_again_only_when_its_record_changes() -> None:
    changes = changes_of("inbound-answered")
    assert len(changes) <= 7
    assert len({change.call.id for change in changes}) == 1


def test_a_trace_that_begins_in_mid_call_gives_a_record_with_a_gap() -> None:
    events = RECORDED["inbound-answered"]
    start = next(i for i, (e, _) in enumerate(events) if e.event == "BridgeEnter")
    [call] = replay(iter(events[start:]), VIEW)
    assert call.gap
    assert call.result is Result.ANSWERED
    assert call.answered_by == "150"


def test_a_trace_that_ends_in_mid_call_leaves_its_result_open() -> None:
    events = RECORDED["inbound-answered"]
    end = next(i for i, (e, _) in enumerate(events) if e.event == "HangupRequest")
    [call] = replay(iter(events[:end]), VIEW)
    assert call.result is None
    assert call.ended_at is None
    assert call.answered_by == "150"


def test_a_call_whose_end_was_not_seen_is_interrupted_or_stays_answered() -> None:
    model = Correlator(VIEW)
    model.feed(arriving("1"), 10.0)
    [change] = model.lose(["1"], 20.0)
    assert (change.call.result, change.call.gap, change.call.ended_at) == (Result.INTERRUPTED, True, 10.0)
    events = RECORDED["inbound-answered"]
    end = next(i for i, (e, _) in enumerate(events) if e.event == "HangupRequest")
    model = Correlator(VIEW)
    for e, at in events[:end]:
        model.feed(e, at)
    call = model.lose(model.knows(), events[end][1] + 100)[-1].call
    assert (call.result, call.gap) == (Result.ANSWERED, True)
    assert call.talk_seconds < 5


def shut_down(events: list[tuple[Any, float]], upto: str) -> list[CallChange]:
    """The recorded call up to an event; then the PBX stops as 16.28 and 22.10 do: it asks every channel to hang up, tells the hangups, then Shutdown."""
    model = Correlator(VIEW)
    end = next(i for i, (e, _) in enumerate(events) if e.event == upto)
    changes = [change for e, at in events[: end + 1] for change in model.feed(e, at)]
    at, up = events[end][1] + 1, dict(model.present())
    for uniqueid, channel in up.items():
        told = {"Event": "SoftHangupRequest", "Uniqueid": uniqueid, "Channel": channel.name, "Linkedid": channel.linkedid, "Cause": "4"}
        changes += model.feed(JsonEvent(told), at)
    for uniqueid, channel in up.items():
        changes += model.feed(JsonEvent({"Event": "Hangup", "Uniqueid": uniqueid, "Channel": channel.name, "Cause": "0"}), at + 0.1)
    changes += model.feed(JsonEvent({"Event": "Shutdown", "Shutdown": "Cleanly", "Restart": "True"}), at + 0.2)
    return changes + model.tick(at + 10)


@pytest.mark.parametrize(
    ("name", "upto", "result"),
    [
        ("inbound-answered", "DialBegin", Result.INTERRUPTED), ("queue-ringall", "DialBegin", Result.INTERRUPTED),
        ("menu-given-up", "Newstate", Result.INTERRUPTED), ("outbound-answered", "DialBegin", Result.INTERRUPTED),
        ("inbound-cancelled", "HangupRequest", Result.CANCELLED), ("inbound-answered", "HangupRequest", Result.ANSWERED),
    ],
)  # fmt: skip
def test_a_call_that_the_pbx_ends_because_it_stops_is_interrupted(name: str, upto: str, result: Result) -> None:
    calls = {change.call.id: change.call for change in shut_down(RECORDED[name], upto)}
    [call] = calls.values()
    assert call.ended_at is not None
    assert (call.result, call.gap) == (result, result is Result.INTERRUPTED)


def test_a_talk_that_the_pbx_ends_because_it_stops_stays_answered() -> None:
    bridged = shut_down(RECORDED["inbound-answered"], "BridgeCreate")[-1].call  # the customer does not hear anybody yet
    assert bridged.result is Result.INTERRUPTED
    events = RECORDED["inbound-answered"]
    talking = [one for one in events if one[0].event not in ("HangupRequest", "Hangup", "BridgeLeave")]
    call = shut_down([*talking, (JsonEvent({"Event": "Marker"}), talking[-1][1])], "Marker")[-1].call
    assert (call.result, call.answered_by, call.gap) == (Result.ANSWERED, "150", True)


def test_channels_that_are_never_hung_up_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 1_000
    assert bound < MAX_CHANNELS <= 100_000
    monkeypatch.setattr("daemon.calls.facts.MAX_CHANNELS", bound)
    model = Correlator(VIEW)
    for n in range(bound + 200):
        model.feed(arriving(str(n)), float(n))
    assert len(model.knows()) == bound
    assert len(model._teller) <= bound


def test_ended_calls_leave_nothing_behind() -> None:
    model = Correlator(VIEW)
    for i in range(50):
        for e, at in RECORDED["click-local-dial"]:
            model.feed(Renamed(e, f"{i}-"), at + i * 1_000)
    model.feed(event("FullyBooted"), 1e12)
    assert model.knows() == set()
    assert not len(model._teller)
    assert not model._closing
    assert not model._by_linkedid
    assert not model._graph.bridges
    assert len(model._tombstones) < 30


def test_the_same_uniqueid_on_another_boot_is_another_call() -> None:
    assert call_id(VIEW, "1.1") == call_id(VIEW, "1.1")
    assert call_id(VIEW, "1.1") != call_id(replace(VIEW, boot="later"), "1.1")
    assert call_id(VIEW, "1.1") != call_id(replace(VIEW, pbx="other"), "1.1")


@given(st.text(), st.text(), st.text(), st.text())
def test_a_calls_id_is_a_uuid_of_version_5(enterprise: str, pbx: str, boot: str, uniqueid: str) -> None:
    names = uuid.UUID("5f1c2e9a-6d55-4c0e-9c59-0b8f3f1f6d10")
    view = replace(VIEW, enterprise=enterprise, pbx=pbx, boot=boot)
    assert call_id(view, uniqueid) == str(uuid.uuid5(names, f"{enterprise}\0{pbx}\0{boot}\0{uniqueid}"))


def test_voicemail_outranks_giving_up_and_giving_up_outranks_no_answer() -> None:
    [call] = replay(iter(events_of("voicemail")), VIEW)
    assert call.result is Result.VOICEMAIL
    [call] = replay(iter(RECORDED["inbound-cancelled"]), VIEW)
    assert call.result is Result.CANCELLED


def test_two_phones_of_a_merged_call_are_one_record_and_the_younger_one_is_marked_a_consultation() -> None:
    model = Correlator(VIEW)
    model.feed(arriving("1"), 1.0)
    model.feed(
        event("Newchannel", Channel="PJSIP/150-9", ChannelState="4", CallerIDNum="150", Context="inoffice", Exten="151", Uniqueid="9", Linkedid="9"), 2.0
    )
    model.feed(
        event("DialBegin", Channel="PJSIP/150-9", Uniqueid="9", Linkedid="9", Exten="151", DestChannel="PJSIP/151-8", DestUniqueid="8", DestLinkedid="9",
              DestChannelState="0", DestContext="inoffice"), 2.1)  # fmt: skip
    changes = model.feed(event("BridgeEnter", BridgeUniqueid="b", BridgeType="basic", Channel="PJSIP/150-9", Uniqueid="9", Linkedid="9"), 3.0)
    changes += model.feed(event("BridgeEnter", BridgeUniqueid="b", BridgeType="basic", Channel="PJSIP/provider-1", Uniqueid="1", Linkedid="1"), 3.0)
    consult = next(change.call for change in changes if change.call.consult)
    assert consult.ended_at == 3.0
    assert changes[-1].call.answered_by == "150"
    assert not changes[-1].call.consult


@pytest.mark.parametrize("text", [b"not json", b"[1, 2]", b'{"Event": "x"'])
def test_a_file_that_is_no_trace_is_told_so(text: bytes) -> None:
    with pytest.raises(TraceError):
        list(read_trace("x.json", text, None))


def test_json_traces_are_read_as_array_and_as_lines_with_times_from_timestamp_headers() -> None:
    events = [{"event": "Newchannel", "uniqueid": "1", "Timestamp": "1700000000.5"}, {"EVENT": "Hangup", "Uniqueid": ["1", "2"]}]
    for data in (json.dumps(events).encode(), "\n".join(map(json.dumps, events)).encode()):
        [(first, at), (second, later)] = list(read_trace("x.jsonl", data, None))
        assert (first.event, second.event, first.get("UniqueID"), second.get("uniqueid")) == ("Newchannel", "Hangup", "1", "1")
        assert (at, later) == (1700000000.5, 1700000000.5)


def test_a_raw_trace_without_a_sidecar_counts_time_from_zero() -> None:
    data = (GOLDEN / "inbound-answered/asterisk-22.ami").read_bytes()
    calls = replay(read_trace("x.ami", data, None), VIEW)
    assert [call.started_at for call in calls] == [0.0]
    assert calls[0].answered_by == "150"


def test_an_emergency_number_that_looks_like_an_extension_went_out() -> None:
    model = Correlator(VIEW)
    model.feed(
        event("Newchannel", Channel="PJSIP/151-1", ChannelState="4", CallerIDNum="151", Context="inoffice", Exten="103", Uniqueid="1", Linkedid="1"), 1.0
    )
    model.feed(event("Newchannel", Channel="PJSIP/provider-2", ChannelState="0", Context="from-trunk", Uniqueid="2", Linkedid="1"), 1.0)
    [change] = model.feed(
        event("DialBegin", Channel="PJSIP/151-1", Uniqueid="1", Linkedid="1", Exten="103", DestChannel="PJSIP/provider-2", DestUniqueid="2",
              DestLinkedid="1", DialString="103@provider"), 1.1)  # fmt: skip
    assert (change.call.direction, change.call.customer_number, change.call.initiator) == ("out", "103", "151")


def test_a_click_that_the_manager_never_answered_knows_its_customer_before_the_pbx_names_it() -> None:
    events = [(e, at) for e, at in events_of("click-manager-absent") if e.event != "OriginateResponse"]
    [call] = replay(iter(events), VIEW)
    assert (call.customer_number, call.result) == ("+375296254070", Result.NO_ANSWER)


def test_a_phone_of_the_internal_context_is_ours_whatever_its_account_is_called() -> None:
    model = Correlator(VIEW)
    model.feed(arriving("1"), 1.0)
    for number, name, dialled in (("2", "PJSIP/ivanov-2", "152"), ("3", "PJSIP/700150-3", "+375171112230")):
        model.feed(event("Newchannel", Channel=name, ChannelState="0", Context="inoffice", Exten="s", Uniqueid=number, Linkedid="1"), 1.0)
        model.feed(event("DialBegin", Channel="PJSIP/provider-1", Uniqueid="1", Linkedid="1", Exten=dialled, DestChannel=name, DestUniqueid=number,
                         DestLinkedid="1"), 1.1)  # fmt: skip
        changes = model.feed(event("Newstate", Channel=name, ChannelState="5", Uniqueid=number, Linkedid="1"), 1.2)
    assert changes[-1].call.rang == ("152", "700150")
    assert [leg.kind for leg in changes[-1].call.legs] == ["customer", "internal", "internal"]
