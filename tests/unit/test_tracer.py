"""A call's trace: everything that was said of it and nothing else, bounded, and replayable."""

from __future__ import annotations

import json
import random
import zlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.ami.masking import Masker
from daemon.ami.wire import Frame
from daemon.calls.correlator import Correlator
from daemon.calls.replay import read_trace, replay
from daemon.calls.timeline import CrmSide, stamped, timeline, why_not
from daemon.calls.tracer import FORGET_AFTER_S, MAX_CALL_EVENTS, MAX_PBX_BYTES, Part, Tracer, pack, told
from daemon.model.signal import CallChange, Ended
from daemon.store.traces import joined
from tests.golden.view import VIEW
from tests.rig import a_call, ringing

GOLDEN = Path(__file__).parent.parent / "golden"


def parts_of(name: str, chance: random.Random | None = None) -> list[Part]:
    """What is put away of a recording: all at its end, or by chance as much as there is."""
    trace = GOLDEN / name / "asterisk-22.ami"
    tracer, model, at = Tracer(), Correlator(VIEW), 0.0
    found = []
    for event, at in read_trace(trace.name, trace.read_bytes(), trace.with_name(trace.name + ".json").read_bytes()):
        tracer.inbox.append((event, at))  # type: ignore[arg-type]
        tracer.changed(model.feed(event, at))
        if chance is not None and chance.random() < 0.3:
            found += tracer.parts(at)
    tracer.changed(model.tick(at + 5))
    return found + tracer.parts(at + 60)


def opened(*parts: Part, masker: Masker | None = None) -> tuple[bytes, list[tuple[int, float]], list[dict[str, object]]]:
    """As it is read from the store."""
    traces = [pack(part, masker) for part in parts]
    raw, chunks = joined([(zlib.decompress(trace.raw), json.loads(zlib.decompress(trace.chunks))) for trace in traces])
    return raw, chunks, [change for trace in traces for change in json.loads(zlib.decompress(trace.changes))]


def test_the_trace_of_every_recorded_call_replays_to_its_record() -> None:
    apart = {"conference-of-two-customers"}  # two records meet in one bridge: each trace holds its own half
    for folder in sorted(GOLDEN.glob("*/scenario.json")):
        if folder.parent.name in apart:
            continue
        for part in parts_of(folder.parent.name):
            raw, chunks, _ = opened(part)
            if part.call.consult:
                continue  # its own trace ends where it was merged: what became of it stands in the other call's
            [again] = [call for call in replay(read_trace("x.ami", raw, json.dumps({"chunks": chunks}).encode()), VIEW) if call.id == part.call.id]
            assert again.to_json() | {"legs": []} == part.call.to_json() | {"legs": []}, folder.parent.name
            [stamped_again] = [call for call in replay(read_trace("x.ami", stamped(raw, chunks), None), VIEW) if call.id == part.call.id]
            assert stamped_again.to_json() | {"legs": []} == part.call.to_json() | {"legs": []}, folder.parent.name


@pytest.mark.parametrize("name", ["chain-of-transfers", "attended-by-phone", "parked-and-fetched", "pickup-directed", "queue-linear", "twenty-at-once"])
def test_put_away_in_parts_at_any_moment_a_trace_is_the_same(name: str) -> None:
    """Whatever calls are joined on the way: nothing is missing, doubled or in another order."""
    whole = {part.call.id: part for part in parts_of(name)}
    for seed in range(5):
        parts: dict[str, list[Part]] = defaultdict(list)
        for part in parts_of(name, random.Random(seed)):
            parts[part.call.id].append(part)
        assert parts.keys() == whole.keys()
        for call_id, some in parts.items():
            assert sum(part.left_out for part in some) == 0
            raw, chunks, changes = opened(*some)
            expected, times, said = opened(whole[call_id])
            if not whole[call_id].call.consult:  # what was joined with another call is not followed further
                assert (raw, chunks) == (expected, times)
            assert changes == said
            assert sum(len(part.events) for part in some) == len(chunks)
    assert max(len(some) for some in parts.values()) > 2


def test_a_running_call_is_put_away_as_far_as_it_has_come_and_a_still_one_costs_nothing() -> None:
    tracer, call = Tracer(), ringing(a_call(linkedid="1.1"))
    tracer.inbox.append((_frame("1.1", 1), 1.0))
    assert tracer.parts(1.0) == []  # nobody's yet
    tracer.changed([CallChange(call, (), 1.0)])
    [part] = tracer.parts(3.0)
    assert (len(part.events), len(part.changes), part.before) == (1, 1, None)
    assert tracer.parts(5.0) == []
    tracer.inbox.append((_frame("2.1", 2), 6.0))
    tracer.inbox.append((_frame("1.1", 3), 6.0))
    [part] = tracer.parts(7.0)
    assert (len(part.events), part.changes, part.before) == (1, [], call)
    tracer.changed([CallChange(replace(call, ended_at=8.0), (Ended(()),), 8.0)])
    assert tracer.parts(8.5) == []  # the last hangups are waited for
    [part] = tracer.parts(8.5, last=True)
    assert told(part.changes, part.before)[0]["record"].keys() == {"ended_at"}
    assert tracer.parts(60.0) == []


def test_what_a_next_process_keeps_of_a_call_follows_what_the_former_kept() -> None:
    """Traces that were stored before parts had numbers are read alike."""
    former = (b"AABB", [[0, 10.0], [2, 10.5]])
    first, second = Tracer(), Tracer()
    for tracer, at in ((first, 20.0), (second, 30.0)):
        for n in range(3):
            tracer.inbox.append((_frame("1.1", n), at))
        tracer.changed([CallChange(ringing(a_call(id="x", linkedid="1.1")), (), at)])
    parts = [tracer.parts(50.0)[0] for tracer in (second, first)]
    packed = [pack(part, None) for part in parts]
    raw, chunks = joined([*[(zlib.decompress(one.raw), json.loads(zlib.decompress(one.chunks))) for one in [*packed, *packed]], former])
    assert [at for _, at in chunks] == [10.0, 10.5, 20.0, 20.0, 20.0, 30.0, 30.0, 30.0]
    assert raw.startswith(b"AABB")
    assert [raw[offset:][:5] for offset, _ in chunks[2:]] == [b"Event"] * 6
    assert [line for line in raw.decode().split("\r\n") if line.startswith("Uniqueid")] == [f"Uniqueid: {n}" for n in (0, 1, 2, 0, 1, 2)]


def test_of_twenty_calls_at_once_each_has_its_own_events() -> None:
    found = parts_of("twenty-at-once")
    assert len(found) == 20
    for part in found:
        assert all(part.call.linkedid.encode() in raw or b"Linkedid" not in raw for _, _, raw in part.events)
    assert len({raw for part in found for _, _, raw in part.events}) == sum(len(part.events) for part in found)


def test_a_masked_trace_names_nobody_and_still_replays() -> None:
    [part] = parts_of("cyrillic-name")
    raw, chunks, changes = opened(part, masker=Masker())
    assert "254070" not in json.dumps(changes)
    assert b"254070" not in raw
    assert "Восток" not in raw.decode()
    [again] = replay(read_trace("x.ami", raw, json.dumps({"chunks": chunks}).encode()), VIEW)
    assert (again.result, again.answered_by) == (part.call.result, part.call.answered_by)


def _frame(linkedid: str, n: int, size: int = 0) -> Frame:
    return Frame(f"Event: Newstate\r\nUniqueid: {n}\r\nLinkedid: {linkedid}\r\nX: {'x' * size}".encode())


def test_a_call_that_never_stops_talking_is_cut_and_says_so() -> None:
    tracer = Tracer()
    for n in range(MAX_CALL_EVENTS + 7):
        tracer.inbox.append((_frame("1.1", n), 1.0))
    tracer.changed([CallChange(a_call(linkedid="1.1"), (Ended(()),), 2.0)])
    [part] = tracer.parts(100.0)
    assert (len(part.events), part.left_out) == (MAX_CALL_EVENTS, 7)


def test_memory_is_bounded_the_stillest_is_forgotten_first_and_what_is_over_goes() -> None:
    tracer = Tracer()
    for n in range(200):
        tracer.inbox.append((_frame(f"{n}.1", n, 200_000), 1.0))
    tracer.parts(10.0)
    assert tracer.size_bytes <= MAX_PBX_BYTES
    tracer.changed([CallChange(a_call(linkedid="0.1"), (Ended(()),), 11.0), CallChange(a_call(linkedid="199.1"), (Ended(()),), 11.0)])
    first, last = tracer.parts(20.0)
    assert (len(first.events), len(last.events)) == (0, 1)
    before = tracer.size_bytes
    tracer.parts(20.0 + FORGET_AFTER_S)
    assert tracer.size_bytes < before


@given(st.lists(st.binary(max_size=200), max_size=30))
@settings(max_examples=150, deadline=None)
def test_nothing_that_a_pbx_says_makes_it_raise(frames: list[bytes]) -> None:
    tracer = Tracer()
    for raw in frames:
        for variant in (raw, b"Event: Newchannel\r\n" + raw, b"Event: BridgeEnter\r\nLinkedid: " + raw):
            tracer.inbox.append((Frame(variant), 1.0))
    tracer.changed([CallChange(a_call(), (Ended(()),), 1.0)])
    for part in tracer.parts(100.0):
        pack(part, Masker())


def test_a_timeline_is_in_order_and_says_why_something_was_not_told() -> None:
    [part] = parts_of("ring-group")
    raw, chunks, changes = opened(part)
    call = part.call.to_json()
    dead = {"id": 7, "integration": "retailcrm", "kind": "journal", "state": "dead", "last_error": "no", "attempts": 9, "created_at": call["ended_at"]}
    items = timeline(call, raw, chunks, changes, [dead], [])
    assert [item["at"] for item in items] == sorted(item["at"] for item in items)
    assert {item["kind"] for item in items} == {"event", "change", "delivery"}
    assert len([item for item in items if item["kind"] == "event"]) == len(part.events)
    on = {"popup_in": True, "journal": True}
    side = CrmSide("retailcrm", True, "live", on)
    assert why_not(call, [dead], [side], paused=False) == ["retailcrm: journal 7 is dead: no."]
    assert why_not(call, [{**dead, "state": "delivered"}], [side], paused=False) == []
    assert why_not(call, [], [], paused=True) == ["The enterprise is paused: CRMs are told nothing.", "No CRM is set up for this enterprise."]
    for other, word in ((CrmSide("x", False, "live", on), "switched off"), (CrmSide("x", True, "observe", on), "observe"),
                        (CrmSide("x", True, "live", {"popup_in": False}), "popup_in"), (side, "nothing was planned")):  # fmt: skip
        assert any(word in note for note in why_not(call, [], [other], paused=False))


def test_a_call_without_raw_events_has_a_story_all_the_same() -> None:
    """It lives, came from CDR, or its trace is past its time."""
    dead = {"created_at": "2026-11-21T05:10:01.000Z", "integration": "retailcrm", "kind": "journal", "state": "dead"}
    assert [item["kind"] for item in timeline(a_call().to_json(), b"", [], [], [dead], [])] == ["delivery"]
    assert stamped(b"", []) == b""
