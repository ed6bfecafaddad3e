"""Recorded traces of a real Asterisk 22 and 16 give exactly the records that the phones lived through.

Each folder has a sentence, the expected records (written down by the scenario, not by the model) and the recordings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daemon.calls.replay import read_trace, replay
from daemon.model.call import Call
from lab.scenarios import SCENARIOS
from tests.golden.view import VIEW

HERE = Path(__file__).parent
TRACES = sorted(HERE.glob("*/*.ami"))


def calls_of(trace: Path) -> list[Call]:
    sidecar = trace.with_name(trace.name + ".json").read_bytes()
    return replay(read_trace(trace.name, trace.read_bytes(), sidecar), VIEW)


def differences(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> list[str]:
    problems = [] if len(found) == len(expected) else [f"{len(found)} records instead of {len(expected)}"]
    customers = [wanted.get("customer_number") for wanted in expected]
    if len(expected) > 1 and None not in customers and len(set(customers)) == len(customers):
        # Calls of one moment reach the PBX in an order of their own: who called pairs them, not the order.
        found, expected = sorted(found, key=lambda call: str(call["customer_number"])), sorted(expected, key=lambda wanted: wanted["customer_number"])
    for call, wanted in zip(found, expected, strict=False):
        problems += [f"{name}: {call[name]!r}, not {value!r}" for name, value in wanted.items() if call[name] != value]
    return problems


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: f"{trace.parent.name}-{trace.stem}")
def test_a_recording_gives_the_records_that_the_phones_lived_through(trace: Path) -> None:
    expected = json.loads((trace.parent / "scenario.json").read_text())["expect"]
    assert differences([call.to_json() for call in calls_of(trace)], expected) == []


def test_every_scenario_is_recorded_on_both_versions() -> None:
    recorded = {(trace.parent.name, trace.stem) for trace in TRACES}
    assert recorded == {(name, f"asterisk-{version}") for name in SCENARIOS for version in (16, 22)}


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_what_the_scenario_says_is_what_is_expected(name: str) -> None:
    about = json.loads((HERE / name / "scenario.json").read_text())
    assert (about["says"], about["expect"]) == (SCENARIOS[name].says, SCENARIOS[name].expect)


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: f"{trace.parent.name}-{trace.stem}")
def test_times_and_legs_hang_together(trace: Path) -> None:
    for call in calls_of(trace):
        assert call.ended_at is not None
        assert call.started_at <= call.ended_at
        assert 0 <= call.talk_seconds <= call.ended_at - call.started_at + 0.001
        assert (call.answered_at is not None) == (call.result is not None and str(call.result) == "answered")
        assert call.legs
        assert all(leg.ended_at is not None for leg in call.legs)
        assert Call.from_json(call.to_json()).to_json() == call.to_json()


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: f"{trace.parent.name}-{trace.stem}")
def test_without_times_the_records_are_the_same(trace: Path) -> None:
    timeless = replay(read_trace(trace.name, trace.read_bytes(), None), VIEW)
    expected = json.loads((trace.parent / "scenario.json").read_text())["expect"]
    assert differences(sorted((call.to_json() for call in timeless), key=lambda c: str(c["customer_number"])),
                       sorted(expected, key=lambda e: str(e["customer_number"]))) == []  # fmt: skip
    assert {call.started_at for call in timeless} == {0.0}


def test_recordings_are_the_names_that_the_pbx_gave() -> None:
    [call] = calls_of(HERE / "inbound-answered/asterisk-22.ami")
    assert len(call.recordings) == 1
    assert call.recordings[0].endswith(f"{call.linkedid}.wav")


@pytest.mark.parametrize("trace", [trace for trace in TRACES if b"\nEvent: Pickup\r\n" in trace.read_bytes()], ids=lambda trace: f"{trace.parent.name}-{trace.stem}")
def test_a_pickup_told_later_than_its_answer_is_told_once(trace: Path) -> None:
    """The picker's thread tells Pickup, the caller's tells DialEnd: which comes first is chance (both orders seen live on 22)."""
    events = list(read_trace(trace.name, trace.read_bytes(), None))
    expected = json.loads((trace.parent / "scenario.json").read_text())["expect"]
    [at] = [n for n, (event, _) in enumerate(events) if event.event == "Pickup"]
    joined = next(n for n, (event, _) in enumerate(events) if n > at and event.event == "BridgeEnter")
    for later in range(at, joined + 1):
        moved = [*events[:at], *events[at + 1 : later + 1], events[at], *events[later + 1 :]]
        assert differences([call.to_json() for call in replay(iter(moved), VIEW)], expected) == [], f"{later - at} events later"
