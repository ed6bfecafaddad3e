"""Cases of docs/calls.md that no recording of the lab shows: hand-written events, each test with its case's number.

Also: every case of that page's table names code and tests that exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from daemon.calls.correlator import Correlator
from daemon.calls.replay import JsonEvent, replay
from daemon.model.call import Call, Direction, Result, Transfer
from daemon.model.signal import Ringing, StoppedRinging
from tests.golden.view import VIEW
from tests.unit.test_correlator import GOLDEN, events_of

ROOT = Path(__file__).parent.parent.parent
TRUNK, A, B, C = "PJSIP/provider-1", "PJSIP/150-2", "PJSIP/151-3", "PJSIP/152-4"


class Script:
    """A call written down event by event; a channel's Uniqueid is the number at its name's end."""

    def __init__(self) -> None:
        self.events: list[tuple[JsonEvent, float]] = []
        self.at = 100.0

    def add(self, kind: str, channel: str | None = None, /, **more: str) -> Script:
        headers = {"Event": kind, **more}
        for prefix, name in [("", channel), *((key[:-7], value) for key, value in more.items() if key.endswith("Channel"))]:
            if name:
                headers |= {f"{prefix}Channel": name, f"{prefix}Uniqueid": name.rpartition("-")[2]}
        headers.setdefault("Linkedid", headers.get("Uniqueid", ""))
        self.events.append((JsonEvent(headers), self.at))
        self.at += 0.1
        return self

    def born(self, channel: str, state: str = "0", linkedid: str = "1", **more: str) -> Script:
        context = "from-trunk" if "provider" in channel else "inoffice"
        return self.add("Newchannel", channel, ChannelState=state, Context=context, Linkedid=linkedid, **{"Exten": "s", **more})

    def arrives(self) -> Script:
        return self.born(TRUNK, "4", CallerIDNum="+375296254070", Exten="+375171112230")

    def rings(self, channel: str, caller: str = TRUNK) -> Script:
        self.born(channel).add("DialBegin", caller, DestChannel=channel, Exten="+375171112230", Linkedid="1", DestLinkedid="1")
        return self.add("Newstate", channel, ChannelState="5", Linkedid="1")

    def answers(self, channel: str, caller: str = TRUNK, bridge: str = "b1") -> Script:
        self.add("Newstate", channel, ChannelState="6", Linkedid="1")
        self.add("DialEnd", caller, DestChannel=channel, DialStatus="ANSWER", Linkedid="1", DestLinkedid="1")
        return self.enter(channel, bridge).enter(caller, bridge)

    def enter(self, channel: str, bridge: str, **more: str) -> Script:
        return self.add("BridgeEnter", channel, BridgeUniqueid=bridge, BridgeType="basic", Linkedid="1", **more)

    def leave(self, channel: str, bridge: str = "b1") -> Script:
        return self.add("BridgeLeave", channel, BridgeUniqueid=bridge, Linkedid="1")

    def gone(self, *channels: str, cause: str = "16") -> Script:
        for channel in channels:
            self.add("Hangup", channel, Cause=cause, Linkedid="1")
        return self

    def later(self, seconds: float) -> Script:
        self.at += seconds
        return self

    def calls(self) -> list[Call]:
        return replay(iter(self.events), VIEW)

    def call(self) -> Call:
        [call] = self.calls()
        return call

    def signals(self) -> list[Any]:
        model = Correlator(VIEW)
        return [signal for event, at in self.events for change in model.feed(event, at) for signal in change.signals]


def talking() -> Script:
    """The customer talks with 150."""
    return Script().arrives().rings(A).answers(A)


@pytest.mark.parametrize("result", ["Not Permitted", "Invalid", "Fail"])
def test_case_5_a_blind_transfer_that_the_pbx_refuses_moves_nothing(result: str) -> None:
    script = talking().add("BlindTransfer", TransfererChannel=A, TransfereeChannel=TRUNK, Result=result, Extension="152")
    call = script.later(1).leave(TRUNK).gone(TRUNK, A).call()
    assert call.transfers == (Transfer("blind", "150", "152", False),)
    assert (call.answered_by, call.last_talked) == ("150", "150")


def test_case_7_a_transfer_into_an_application_reaches_nobody() -> None:
    script = talking().born("PJSIP/150-5", "6", "5").add(
        "AttendedTransfer", OrigTransfererChannel=A, SecondTransfererChannel="PJSIP/150-5", TransfereeChannel=TRUNK,
        Result="Success", DestType="App", DestApp="VoiceMail",
    )  # fmt: skip
    call = script.leave(A).leave(TRUNK).gone(A, "PJSIP/150-5", TRUNK).call()
    assert call.transfers == (Transfer("attended", "150", None, False),)
    assert call.result is Result.ANSWERED


@pytest.mark.parametrize(("kind", "result", "done"), [("Threeway", "Success", True), ("Link", "Success", True), ("Fail", "Fail", False)])
def test_case_8_and_40_link_and_threeway_join_the_third_and_fail_moves_nothing(kind: str, result: str, done: bool) -> None:
    script = talking().born("PJSIP/150-5", "4", "5", Exten="151").born(B, linkedid="5")
    script.add("DialBegin", "PJSIP/150-5", DestChannel=B, Exten="151", Linkedid="5", DestLinkedid="5").add("Newstate", B, ChannelState="6", Linkedid="5")
    script.add("DialEnd", "PJSIP/150-5", DestChannel=B, DialStatus="ANSWER", Linkedid="5", DestLinkedid="5")
    for channel in (B, "PJSIP/150-5"):
        script.add("BridgeEnter", channel, BridgeUniqueid="b2", BridgeType="basic", Linkedid="5")
    script.add("AttendedTransfer", OrigTransfererChannel=A, SecondTransfererChannel="PJSIP/150-5", TransfereeChannel=TRUNK, TransferTargetChannel=B,
               Result=result, DestType=kind)  # fmt: skip
    if done:
        script.add("BridgeMerge", ToBridgeUniqueid="b1", FromBridgeUniqueid="b2").leave(A).later(1).leave("PJSIP/150-5")
    main, consult = script.later(1).gone(TRUNK, A, "PJSIP/150-5", B).calls()
    assert main.transfers == (Transfer("attended", "150", "151", done),)
    assert main.last_talked == ("151" if done else "150")
    assert (consult.direction, consult.consult) == (Direction.INTERNAL, done)


@pytest.mark.parametrize("has_pickup_event", [True, False])
def test_case_15_an_old_pickup_that_announces_a_dial_to_the_picker_is_a_pickup_all_the_same(has_pickup_event: bool) -> None:
    script = Script().arrives().rings(A).born(B, "4", "3", Exten="*8").add("Newstate", B, ChannelState="6", Linkedid="3")
    if has_pickup_event:
        script.add("Pickup", B, TargetChannel=A, Linkedid="3")
    script.add("DialEnd", TRUNK, DestChannel=A, DialStatus="CANCEL", Linkedid="1", DestLinkedid="1")
    script.add("DialBegin", TRUNK, DestChannel=B, Linkedid="1", DestLinkedid="3").add("DialEnd", TRUNK, DestChannel=B, DialStatus="ANSWER", DestLinkedid="3")
    call = script.gone(A, cause="26").enter(B, "b1").enter(TRUNK, "b1").later(1).gone(TRUNK, B).call()
    assert call.transfers == (Transfer("pickup", "150", "151", True),)
    assert (call.rang, call.answered_by) == (("150",), "151")


def test_case_29_a_reload_is_no_restart() -> None:
    script = talking().add("Reload", Module="All").add("FullyBooted").later(2).leave(TRUNK).gone(TRUNK, A)
    assert script.call().talk_seconds > 2


def test_case_31_ends_without_beginnings_and_beginnings_without_ends() -> None:
    no_begin = [(e, at) for e, at in talking().leave(TRUNK).gone(TRUNK, A).events if e.event != "DialBegin"]
    no_end = [(e, at) for e, at in talking().leave(TRUNK).gone(TRUNK, A).events if e.event != "DialEnd"]
    for events in (no_begin, no_end):
        [call] = replay(iter(events), VIEW)
        assert (call.answered_by, call.rang, call.result) == ("150", ("150",), Result.ANSWERED)


def test_case_34_a_renamed_channel_is_the_same_channel() -> None:
    script = talking().add("Rename", A, Newname="PJSIP/150-2<ZOMBIE>").later(1).leave(TRUNK).gone(TRUNK, A)
    assert (script.call().answered_by, len(script.call().legs)) == ("150", 2)


def test_case_36_a_parked_caller_whom_the_parker_fetches_did_not_talk_meanwhile() -> None:
    script = talking().add("ParkedCall", ParkeeChannel=TRUNK, ParkerDialString="PJSIP/150", ParkingSpace="701").leave(TRUNK).leave(A).gone(A)
    script.add("BridgeEnter", TRUNK, BridgeUniqueid="p", BridgeType="parking", BridgeTechnology="holding_bridge").later(60)
    script.born("PJSIP/150-7", "6", "7", Exten="701").add("UnParkedCall", ParkeeChannel=TRUNK, RetrieverChannel="PJSIP/150-7").leave(TRUNK, "p")
    call = script.enter(TRUNK, "b2").enter("PJSIP/150-7", "b2").later(1).leave(TRUNK, "b2").gone(TRUNK, "PJSIP/150-7").call()
    assert call.transfers == (Transfer("park", "150", "150", True),)
    assert call.talk_seconds < 5


def test_case_39_a_meetme_room_is_a_conference() -> None:
    script = Script().arrives().add("MeetmeJoin", TRUNK, Meetme="630", Usernum="1").born(A, "6", "2", Exten="630")
    script.add("MeetmeJoin", A, Meetme="630", Usernum="2", Linkedid="2").later(2).add("MeetmeLeave", TRUNK, Meetme="630").gone(TRUNK, A)
    call = script.call()
    assert (call.direction, call.answered_by) == (Direction.IN, "150")
    assert 1 < call.talk_seconds < 3


def test_case_39_when_one_of_three_leaves_the_others_talk_on() -> None:
    script = talking().born(B, "6", "3", Exten="630").enter(B, "b1").later(1).leave(A).gone(A).later(1).leave(TRUNK).gone(TRUNK, B)
    assert (script.call().answered_by, script.call().last_talked) == ("150", "151")


def test_case_52_two_calls_of_one_customer_at_once_are_two_records() -> None:
    script = Script().arrives().born("PJSIP/provider-9", "4", "9", CallerIDNum="+375296254070", Exten="+375171112230")
    first, second = script.later(1).gone(TRUNK, "PJSIP/provider-9").calls()
    assert first.customer_number == second.customer_number
    assert first.id != second.id


class _OfAnother:
    """The event of another call of the same customer to the same phone: identities are changed, and no number."""

    def __init__(self, event: Any, mark: str) -> None:
        self._event, self._mark, self.event = event, mark, event.event

    def get(self, header: str, /) -> str | None:
        value = self._event.get(header)
        return f"{self._mark}{value}" if value and header.endswith(("Uniqueid", "Linkedid")) else value


@pytest.mark.parametrize("is_withheld", [False, True])
def test_case_3_of_two_calls_that_look_alike_the_one_that_nobody_took_comes_back(is_withheld: bool) -> None:
    """150 hands both over by keys; the second is given up first. Which of them calls back is told by whom the PBX lets go of."""
    events = [event for event, _ in events_of("blonde-by-keys-returned")]
    if is_withheld:
        events = [_Withheld(event) for event in events]
    [handed_over] = [n for n, event in enumerate(events) if event.event == "AttendedTransfer"]
    first, second = ([_OfAnother(event, mark) for event in events] for mark in ("a", "b"))
    played = [*first[: handed_over + 1], *second, *first[handed_over + 1 :]]
    calls = replay(iter([(event, 100.0 + n / 10) for n, event in enumerate(played)]), VIEW)
    [alone] = replay(iter([(event, 100.0 + n / 10) for n, event in enumerate(events)]), VIEW)
    assert alone.transfers == (Transfer("blonde", "150", "152", False),)
    assert len(calls) == 2
    for call in calls:
        assert (call.transfers, call.rang, call.last_talked, len(call.legs)) == (alone.transfers, alone.rang, alone.last_talked, len(alone.legs))


class _Withheld:
    """The event of a customer who shows no number."""

    def __init__(self, event: Any) -> None:
        self._event, self.event = event, event.event

    def get(self, header: str, /) -> str | None:
        value = self._event.get(header)
        return "<unknown>" if value == "+375296254070" else value


def test_case_3_a_click_from_the_same_phone_is_no_call_that_comes_back() -> None:
    events = [event for event, _ in events_of("blonde-by-keys-returned")]
    [handed_over] = [n for n, event in enumerate(events) if event.event == "AttendedTransfer"]
    script = Script()
    script.events = [(event, 100.0) for event in events[: handed_over + 1]]
    click = JsonEvent({
        "Event": "DialBegin", "DestChannel": "PJSIP/150-99", "DestUniqueid": "vochid-click-1", "DestLinkedid": "vochid-click-1",
        "DestConnectedLineNum": "+375296254070",
    })  # fmt: skip
    born = JsonEvent({"Event": "Newchannel", "Channel": "PJSIP/150-99", "Uniqueid": "vochid-click-1", "Linkedid": "vochid-click-1", "ChannelState": "0"})
    script.events += [(born, 100.0), (click, 100.0)]
    gone = JsonEvent({"Event": "Hangup", "Uniqueid": "vochid-click-1", "Cause": "16"})
    assert sorted(call.click_to_call for call in replay(iter([*script.events, (gone, 101.0)]), VIEW)) == [False, True]


def test_case_42_keys_that_are_pressed_change_nothing() -> None:
    script = talking()
    for kind in ("DTMFBegin", "DTMFEnd"):
        script.add(kind, TRUNK, Digit="1", Direction="Received", Linkedid="1")
    assert script.later(1).leave(TRUNK).gone(TRUNK, A).call().to_json() == talking().later(1.2).leave(TRUNK).gone(TRUNK, A).call().to_json()


def test_case_67_talk_ends_with_the_bridge_and_not_with_a_late_hangup() -> None:
    call = talking().later(1).leave(TRUNK).later(8).gone(TRUNK, A).call()
    assert 0.9 < call.talk_seconds < 1.5


def test_case_68_early_media_is_no_answer() -> None:
    script = Script().arrives().rings(A).add("DialState", TRUNK, DestChannel=A, DialStatus="PROGRESS", Linkedid="1", DestLinkedid="1")
    assert script.later(3).gone(TRUNK, A).call().answered_at is None


def test_case_69_a_bridge_that_changes_its_technology_is_the_same_talk() -> None:
    script = talking().enter(A, "b1", BridgeTechnology="native_rtp").enter(TRUNK, "b1", BridgeTechnology="simple_bridge").later(1).leave(TRUNK).gone(TRUNK, A)
    assert 1 < script.call().talk_seconds < 1.6


def popups(name: str) -> list[Any]:
    model = Correlator(VIEW)
    changes = [change for event, at in events_of(name) for change in model.feed(event, at)]
    return [(change.call.customer_number, signal) for change in changes if change.call.direction is Direction.IN for signal in change.signals]


@pytest.mark.parametrize(
    ("name", "opened", "closed"),
    [
        ("attended-by-phone", "150", "161"),  # case 1
        ("blonde-by-phone", "150", "161"),  # case 3
        ("blind-by-phone", "150", "161"),  # case 4
        ("pickup-by-group", "161", "150"),  # case 15
    ],
)
def test_cases_1_3_4_15_the_next_to_talk_sees_the_customer_and_the_formers_popup_closes(name: str, opened: str, closed: str) -> None:
    told = popups(name)
    assert ("+375296254070", Ringing((opened,))) in told
    assert ("+375296254070", StoppedRinging((closed,))) in told


def rows() -> Iterable[tuple[int, str]]:
    for line in (ROOT / "docs/calls.md").read_text().splitlines():
        if found := re.match(r"\| (\d+) \| ", line):
            yield int(found[1]), line


def test_the_table_of_cases_has_all_seventy_and_names_code_and_tests_that_exist() -> None:
    table = dict(rows())
    assert sorted(table) == list(range(1, 71))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    words = set(re.findall(r"\w+", "".join(path.read_text() for path in (ROOT / "daemon").rglob("*.py"))))
    for number, row in table.items():
        _, _, _, where, proof, _ = row.split("|")
        assert "`golden/" in proof or "`test_" in proof, (number, "no test")
        for name in re.findall(r"`(?:[A-Z][A-Za-z]+\.)?(_?[A-Za-z_]+)`", where):
            assert name in words, (number, name)
        for name in re.findall(r"`golden/([a-z0-9-]+)`", row):
            assert (GOLDEN / name / "scenario.json").exists(), (number, name)
        for name in re.findall(r"`(test_[a-z0-9_]+)`", row):
            assert f"def {name}" in tests, (number, name)
        for name in re.findall(r"`((?:daemon|calls|ami|adapters|lab)/[a-z_/]+\.py)`", row):
            assert (ROOT / name).exists() or (ROOT / "daemon" / name).exists(), (number, name)
