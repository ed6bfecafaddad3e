"""Resync without a PBX: whatever was not seen, the calls afterwards are the calls that were, each once.

A small PBX is played from recordings: it knows what really lives, as Asterisk does, and shows it as CoreShowChannels and BridgeList would.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.ami.session import Answer
from daemon.ami.wire import Frame
from daemon.calls.correlator import Correlator, Event
from daemon.calls.replay import read_trace
from daemon.calls.resync import Left, judge, sort_out
from daemon.calls.snapshot import BridgeNow, ChannelNow, Snapshot, events_of, is_heard_of, read_snapshot
from daemon.model.call import Call, Result
from daemon.model.signal import Answered, CallChange, Ended, Ringing
from tests.golden.view import VIEW
from tests.rig import a_call

GOLDEN = Path(__file__).parent.parent / "golden"
BOOT = "2026-11-21T08:00:00"
NAMES = ("inbound-answered", "ring-group", "queue-linear", "outbound-answered", "click-local-dial", "forwarded-to-mobile", "voicemail", "internal-answered")


def events_of_trace(name: str) -> list[tuple[Event, float]]:
    trace = GOLDEN / name / "asterisk-22.ami"
    return list(read_trace(trace.name, trace.read_bytes(), trace.with_name(trace.name + ".json").read_bytes()))


class Pbx:
    """What is true of the PBX after the events it has sent."""

    def __init__(self) -> None:
        self.channels: dict[str, ChannelNow] = {}
        self.bridges: dict[str, BridgeNow] = {}
        self.made: dict[str, float] = {}

    def happens(self, event: Event, at: float) -> None:
        uid, get = event.get("Uniqueid") or "", event.get
        match event.event:
            case "Newchannel":
                self.made[uid] = at
                self.channels[uid] = ChannelNow(
                    uid, get("Channel") or "", get("Linkedid") or "", get("ChannelState") or "", get("Context") or "", get("Exten") or "",
                    get("CallerIDNum") or "", get("CallerIDName") or "",
                )  # fmt: skip
            case "Newstate":
                self.channels[uid] = replace(self.channels[uid], state=get("ChannelState") or "", linkedid=get("Linkedid") or "")
            case "DialBegin":
                dest = get("DestUniqueid") or ""
                self.channels[dest] = replace(self.channels[dest], application="AppDial" if uid else "AppDial2", data="(Outgoing Line)")
                if uid in self.channels and self.channels[uid].application != "Queue":
                    self.channels[uid] = replace(self.channels[uid], application="Dial", data=(get("DestChannel") or "").rpartition("-")[0])
            case "QueueCallerJoin":
                self.channels[uid] = replace(self.channels[uid], application="Queue", data=f"{get('Queue')},,,")
            case "BridgeEnter":
                bridge = get("BridgeUniqueid") or ""
                self.bridges[bridge] = BridgeNow(get("BridgeType") or "", get("BridgeTechnology") or "")
                self.channels[uid] = replace(self.channels[uid], bridge=bridge, state="6")
            case "BridgeLeave":
                self.channels[uid] = replace(self.channels[uid], bridge="")
            case "Hangup":
                self.channels.pop(uid, None)

    def shows(self, at: float) -> Snapshot:
        channels = {uid: replace(channel, age_s=float(int(at - self.made[uid]))) for uid, channel in self.channels.items()}
        return Snapshot(at, BOOT, channels, dict(self.bridges))


def resync(model: Correlator, snapshot: Snapshot, buffered: list[tuple[Event, float]]) -> list[CallChange]:
    """As the feed does it."""
    born = {event.get("Uniqueid") or "" for event, _ in buffered if event.event == "Newchannel"}
    hung_up = {event.get("Uniqueid") or "" for event, _ in buffered if event.event == "Hangup"}
    verdict = judge(snapshot, model.view.boot, model.present(), hung_up)
    familiar = model.knows() | born | (snapshot.channels or {}).keys()
    is_reused = verdict.rebooted or bool(verdict.gone & (snapshot.channels or {}).keys())
    changes = model.lose(verdict.gone, snapshot.at, reused=True) if is_reused else []
    model.view = replace(model.view, boot=verdict.boot)
    changes += model.take_in(events_of(snapshot, model.present(), born), snapshot.at)
    changes += [] if is_reused else model.lose(verdict.gone, snapshot.at)
    return changes + [change for event, at in buffered if is_heard_of(event, familiar) for change in model.feed(event, at)]


def the_calls(changes: list[CallChange]) -> dict[str, Call]:
    return {change.call.id: change.call for change in changes}


@given(st.data())
@settings(max_examples=250, deadline=None)
def test_a_lost_line_at_any_moment_leaves_no_call_open_none_doubled_and_announces_nothing_twice(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    events = events_of_trace(name)
    lost = data.draw(st.integers(0, len(events)))
    back = data.draw(st.integers(lost, len(events)))
    shown = data.draw(st.integers(back, min(len(events), back + 15)))  # what happens between login and snapshot is buffered and in both
    pbx, model = Pbx(), Correlator(replace(VIEW, boot=BOOT))
    changes: list[CallChange] = []
    for index, (event, at) in enumerate(events[:shown]):
        pbx.happens(event, at)
        if index < lost:
            changes += model.feed(event, at)
    model.mark_gap()
    now = events[min(shown, len(events) - 1)][1]
    changes += resync(model, pbx.shows(now), events[back:shown])
    for event, at in events[shown:]:
        changes += model.feed(event, at)
    changes += model.tick(events[-1][1] + 60)

    calls = the_calls(changes)
    whole = Correlator(replace(VIEW, boot=BOOT))
    truth = the_calls([change for event, at in events for change in whole.feed(event, at)] + whole.tick(events[-1][1] + 60))
    assert len(calls) <= len(truth)
    assert all(call.ended_at is not None for call in calls.values())
    assert model.knows() == set()
    for kind in (Answered, Ended):
        assert sum(isinstance(signal, kind) for change in changes for signal in change.signals) <= len(truth)
    rung = [number for change in changes for signal in change.signals if isinstance(signal, Ringing) for number in signal.extensions]
    assert len(rung) == len(set(rung))
    if lost == back == shown and lost:  # nothing was missed: only the mark remains
        assert {i: replace(c, gap=False) for i, c in calls.items()} == {i: replace(c, gap=False) for i, c in truth.items()}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "voicemail"])
def test_a_call_that_runs_when_we_first_connect_is_taken_in_with_who_talks(name: str) -> None:
    events = events_of_trace(name)
    whole, truth = Correlator(VIEW), {}
    for event, at in events:
        truth |= the_calls(whole.feed(event, at))
    [wanted] = truth.values()
    assert wanted.answered_at is not None
    cut = next(index for index, (_, at) in enumerate(events) if at > wanted.answered_at + 0.2)
    pbx, model = Pbx(), Correlator(replace(VIEW, boot=BOOT))
    for event, at in events[:cut]:
        pbx.happens(event, at)
    [change] = resync(model, pbx.shows(events[cut][1]), [])
    call = change.call
    fields = ["direction", "customer_number", "answered_by", "initiator", "queue"]
    if name == "click-local-dial":  # its Local channels are optimised away: nothing is left that says who began
        fields.remove("initiator")
    assert {field: getattr(call, field) for field in fields} == {field: getattr(wanted, field) for field in fields}
    assert call.gap
    assert abs(call.started_at - wanted.started_at) < 1.1
    assert not any(isinstance(signal, Ringing) for signal in change.signals if call.direction != "out")


def test_a_restart_whose_uniqueids_come_again_merges_nothing() -> None:
    events = events_of_trace("inbound-answered")
    cut = next(index for index, (event, _) in enumerate(events) if event.event == "HangupRequest")
    model, pbx = Correlator(replace(VIEW, boot=BOOT)), Pbx()
    before = [change for event, at in events[:cut] for change in model.feed(event, at)]
    for event, at in events[:6]:  # the same Uniqueids and names, an hour later
        pbx.happens(event, at + 3_600)
    again = replace(pbx.shows(events[6][1] + 3_600), boot="2026-11-21T09:00:00")
    after = resync(model, again, [])
    old, new = the_calls(before), the_calls(after)
    assert len(old.keys() | new.keys()) == 2
    [ended] = [call for call in new.values() if call.id in old]
    assert (ended.result, ended.gap) == (Result.ANSWERED, True)
    assert [call.ended_at for call in new.values() if call.id not in old] == [None]


def test_the_same_boot_under_another_name_is_a_changed_zone_and_calls_go_on() -> None:
    events = events_of_trace("inbound-answered")
    model, pbx = Correlator(replace(VIEW, boot=BOOT)), Pbx()
    cut = next(index for index, (event, _) in enumerate(events) if event.event == "HangupRequest")
    for event, at in events[:cut]:
        model.feed(event, at)
        pbx.happens(event, at)
    verdict = judge(replace(pbx.shows(events[cut][1]), boot="2026-11-21T11:00:00"), BOOT, model.present(), set())
    assert (verdict.rebooted, verdict.boot, verdict.gone) == (False, BOOT, frozenset())


def test_a_channel_that_is_younger_and_named_otherwise_is_another_although_the_boots_clock_began_again() -> None:
    known = Correlator(replace(VIEW, boot=BOOT))
    known.feed(_newchannel("1.1", "PJSIP/150-00000001"), 100.0)
    now = ChannelNow("1.1", "PJSIP/151-00000001", "1.1", "6", age_s=3.0)
    verdict = judge(Snapshot(500.0, BOOT, {"1.1": now}), BOOT, known.present(), {"1.1"})
    assert (verdict.rebooted, verdict.gone) == (False, {"1.1"})
    renamed = judge(Snapshot(500.0, BOOT, {"1.1": replace(now, age_s=400.0)}), BOOT, known.present(), set())
    assert renamed.gone == frozenset()


def test_without_the_right_to_list_channels_only_a_restart_closes_calls() -> None:
    model = Correlator(replace(VIEW, boot=BOOT))
    model.feed(_newchannel("1.1", "PJSIP/150-00000001"), 100.0)
    assert judge(Snapshot(200.0, BOOT, None), BOOT, model.present(), set()).gone == frozenset()
    assert judge(Snapshot(200.0, "", None), BOOT, model.present(), set()).gone == frozenset()
    assert judge(Snapshot(200.0, "2026-11-21T09:00:00", None), BOOT, model.present(), set()).gone == {"1.1"}


def test_what_a_former_process_left_goes_on_by_linkedid_or_by_its_legs_and_else_ends_when_it_was_last_heard() -> None:
    by_linkedid, by_leg, gone = (
        a_call(linkedid=f"{n}.0", ended_at=None, result=None, talk_seconds=0.0, started_at=1_000.0, answered_at=1_010.0) for n in (1, 2, 3)
    )
    by_leg = replace(by_leg, legs=(replace(by_leg.legs[0], channel="PJSIP/provider-7", started_at=1_000.0),))
    channels = {
        "1.0": ChannelNow("1.0", "PJSIP/provider-1", "1.0", age_s=100.0),
        "2.5": ChannelNow("2.5", "PJSIP/provider-7", "9.9", age_s=100.0),
    }  # fmt: skip
    snapshot = Snapshot(1_100.0, BOOT, channels)
    same, living, ends = sort_out(Left(BOOT, 1_050.0, (by_linkedid, by_leg, gone)), snapshot)
    assert same
    assert {(call.id, call.linkedid) for call in living} == {(by_linkedid.id, "1.0"), (by_leg.id, "9.9")}
    [end] = ends
    assert (end.call.id, end.call.ended_at, end.call.talk_seconds, end.call.result, end.call.gap) == (gone.id, 1_050.0, 40.0, Result.ANSWERED, True)
    # After a restart a Linkedid alone proves nothing.
    other = replace(snapshot, boot="2026-11-21T09:00:00")
    assert sort_out(Left(BOOT, 1_050.0, (by_linkedid, gone)), other)[0] is False
    assert [call.id for call in sort_out(Left(BOOT, 1_050.0, (by_leg,)), other)[1]] == [by_leg.id]


def test_someone_in_a_holding_bridge_talks_with_nobody() -> None:
    parked = [ChannelNow(f"{n}.1", f"PJSIP/{name}-1", f"{n}.1", "6", application="Park", bridge="lot", age_s=5.0) for n, name in ((1, "provider"), (2, "150"))]
    for bridges in ({"lot": BridgeNow("parking", "holding_bridge")}, {}):
        model = Correlator(replace(VIEW, boot=BOOT))
        changes = resync(model, Snapshot(50.0, BOOT, {c.uniqueid: c for c in parked}, bridges), [])
        assert changes
        assert all(change.call.answered_at is None for change in changes)


def test_answers_of_a_real_pbx_are_read() -> None:
    def answer(*frames: str) -> Answer:
        head, *items = (Frame(text.replace(" | ", "\r\n").encode()) for text in frames)
        return Answer(head, tuple(items))

    status = answer("Response: Success | CoreStartupDate: 2026-11-21 | CoreStartupTime: 11:46:23")
    shown = answer(
        "Response: Success | EventList: start",
        "Event: CoreShowChannel | Channel: PJSIP/150-00000002 | ChannelState: 6 | CallerIDNum: 150 | CallerIDName: Менеджер 150 | Context: inoffice | "
        "Uniqueid: 1795261585.2 | Linkedid: 1795261585.0 | Application: AppDial | ApplicationData: (Outgoing Line) | Duration: 01:00:02 | BridgeId: 46e0",
        "Event: CoreShowChannel | Channel: Message/ast_msg_queue | Uniqueid: 1795261585.9",
        "Event: CoreShowChannel | Uniqueid: 1795261585.3 | Duration: nonsense",
    )
    bridges = answer("Response: Success", "Event: BridgeListItem | BridgeUniqueid: 46e0 | BridgeType: basic | BridgeTechnology: simple_bridge")
    found = read_snapshot(status, shown, bridges, 9_000.0)
    assert found.boot == "2026-11-21T11:46:23"
    assert found.channels is not None
    assert list(found.channels) == ["1795261585.2", "1795261585.3"]
    assert found.made_at(found.channels["1795261585.2"]) == 9_000.0 - 3_602
    assert found.channels["1795261585.3"].age_s is None
    assert found.bridges == {"46e0": BridgeNow("basic", "simple_bridge")}
    refused = answer("Response: Error | Message: Permission denied")
    assert read_snapshot(refused, refused, refused, 1.0) == Snapshot(1.0)


def _newchannel(uniqueid: str, name: str) -> Frame:
    return Frame(
        f"Event: Newchannel\r\nChannel: {name}\r\nUniqueid: {uniqueid}\r\nLinkedid: {uniqueid}\r\nChannelState: 4\r\nContext: inoffice\r\nExten: 151".encode()
    )


def test_every_scenario_here_is_a_recorded_one() -> None:
    assert all(json.loads((GOLDEN / name / "scenario.json").read_text())["says"] for name in NAMES)
