"""A call's trace: everything that was said of it and nothing else, bounded, and replayable."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.ami.masking import Masker
from daemon.ami.wire import Frame
from daemon.calls.correlator import Correlator
from daemon.calls.replay import read_trace, replay
from daemon.calls.timeline import CrmSide, stamped, timeline, why_not
from daemon.calls.tracer import FORGET_AFTER_S, MAX_CALL_EVENTS, MAX_PBX_BYTES, Ripe, Tracer, pack
from daemon.model.signal import CallChange, Ended
from tests.golden.view import VIEW
from tests.rig import a_call

GOLDEN = Path(__file__).parent.parent / "golden"


def ripe_of(name: str) -> list[Ripe]:
    trace = GOLDEN / name / "asterisk-22.ami"
    tracer, model, at = Tracer(), Correlator(VIEW), 0.0
    for event, at in read_trace(trace.name, trace.read_bytes(), trace.with_name(trace.name + ".json").read_bytes()):
        tracer.inbox.append((event, at))  # type: ignore[arg-type]
        tracer.changed(model.feed(event, at))
    tracer.changed(model.tick(at + 5))
    return tracer.ripe(at + 60)


def opened(ripe: Ripe, masker: Masker | None = None) -> tuple[bytes, list[tuple[int, float]], list[dict[str, object]]]:
    trace = pack(ripe, masker)
    return zlib.decompress(trace.raw), json.loads(zlib.decompress(trace.chunks)), json.loads(zlib.decompress(trace.changes))


def test_the_trace_of_every_recorded_call_replays_to_its_record() -> None:
    apart = {"conference-of-two-customers"}  # two records meet in one bridge: each trace holds its own half
    for folder in sorted(GOLDEN.glob("*/scenario.json")):
        if folder.parent.name in apart:
            continue
        for ripe in ripe_of(folder.parent.name):
            raw, chunks, _ = opened(ripe)
            if ripe.call.consult:
                continue  # its own trace ends where it was merged: what became of it stands in the other call's
            [again] = [call for call in replay(read_trace("x.ami", raw, json.dumps({"chunks": chunks}).encode()), VIEW) if call.id == ripe.call.id]
            assert again.to_json() | {"legs": []} == ripe.call.to_json() | {"legs": []}, folder.parent.name
            [stamped_again] = [call for call in replay(read_trace("x.ami", stamped(raw, chunks), None), VIEW) if call.id == ripe.call.id]
            assert stamped_again.to_json() | {"legs": []} == ripe.call.to_json() | {"legs": []}, folder.parent.name


def test_of_twenty_calls_at_once_each_has_its_own_events() -> None:
    found = ripe_of("twenty-at-once")
    assert len(found) == 20
    for ripe in found:
        assert all(ripe.call.linkedid.encode() in raw or b"Linkedid" not in raw for _, _, raw in ripe.events)
    assert len({raw for ripe in found for _, _, raw in ripe.events}) == sum(len(ripe.events) for ripe in found)


def test_a_masked_trace_names_nobody_and_still_replays() -> None:
    [ripe] = ripe_of("cyrillic-name")
    raw, chunks, changes = opened(ripe, Masker())
    assert "254070" not in json.dumps(changes)
    assert b"254070" not in raw
    assert "Восток" not in raw.decode()
    [again] = replay(read_trace("x.ami", raw, json.dumps({"chunks": chunks}).encode()), VIEW)
    assert (again.result, again.answered_by) == (ripe.call.result, ripe.call.answered_by)


def _frame(linkedid: str, n: int, size: int = 0) -> Frame:
    return Frame(f"Event: Newstate\r\nUniqueid: {n}\r\nLinkedid: {linkedid}\r\nX: {'x' * size}".encode())


def test_a_call_that_never_stops_talking_is_cut_and_says_so() -> None:
    tracer = Tracer()
    for n in range(MAX_CALL_EVENTS + 7):
        tracer.inbox.append((_frame("1.1", n), 1.0))
    tracer.changed([CallChange(a_call(linkedid="1.1"), (Ended(()),), 2.0)])
    [ripe] = tracer.ripe(100.0)
    assert (len(ripe.events), ripe.left_out) == (MAX_CALL_EVENTS, 7)


def test_memory_is_bounded_the_stillest_is_forgotten_first_and_what_is_over_goes() -> None:
    tracer = Tracer()
    for n in range(200):
        tracer.inbox.append((_frame(f"{n}.1", n, 200_000), 1.0))
    tracer.ripe(10.0)
    assert tracer.size_bytes <= MAX_PBX_BYTES
    tracer.changed([CallChange(a_call(linkedid="0.1"), (Ended(()),), 11.0), CallChange(a_call(linkedid="199.1"), (Ended(()),), 11.0)])
    first, last = tracer.ripe(20.0)
    assert (len(first.events), len(last.events)) == (0, 1)
    before = tracer.size_bytes
    tracer.ripe(20.0 + FORGET_AFTER_S)
    assert tracer.size_bytes < before


@given(st.lists(st.binary(max_size=200), max_size=30))
@settings(max_examples=150, deadline=None)
def test_nothing_that_a_pbx_says_makes_it_raise(frames: list[bytes]) -> None:
    tracer = Tracer()
    for raw in frames:
        for variant in (raw, b"Event: Newchannel\r\n" + raw, b"Event: BridgeEnter\r\nLinkedid: " + raw):
            tracer.inbox.append((Frame(variant), 1.0))
    tracer.changed([CallChange(a_call(), (Ended(()),), 1.0)])
    for ripe in tracer.ripe(100.0):
        pack(ripe, Masker())


def test_a_timeline_is_in_order_and_says_why_something_was_not_told() -> None:
    [ripe] = ripe_of("ring-group")
    raw, chunks, changes = opened(ripe)
    call = ripe.call.to_json()
    dead = {"id": 7, "integration": "retailcrm", "kind": "journal", "state": "dead", "last_error": "no", "attempts": 9, "created_at": call["ended_at"]}
    items = timeline(call, raw, chunks, changes, [dead], [])
    assert [item["at"] for item in items] == sorted(item["at"] for item in items)
    assert {item["kind"] for item in items} == {"event", "change", "delivery"}
    assert len([item for item in items if item["kind"] == "event"]) == len(ripe.events)
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
    from tests.rig import a_call

    dead = {"created_at": "2026-11-21T05:10:01.000Z", "integration": "retailcrm", "kind": "journal", "state": "dead"}
    assert [item["kind"] for item in timeline(a_call().to_json(), b"", [], [], [dead], [])] == ["delivery"]
    assert stamped(b"", []) == b""
