"""Whatever order of one moment's events the PBX's threads bring about, the records and the popups are the same.

Times stay where they were: the event that comes n-th gets the n-th time.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from daemon.calls.correlator import Correlator
from daemon.calls.replay import read_trace
from daemon.model.call import Call
from daemon.model.signal import Answered, CallChange, Ended, Ringing, StoppedRinging
from tests.golden.order import Told, as_late_and_as_early, shuffled, told
from tests.golden.test_traces import TRACES
from tests.golden.view import VIEW

SHUFFLES = 3
WHOLE = [trace for trace in TRACES if trace.stem == "asterisk-22" and trace.parent.name != "twenty-at-once"]  # the rest is shuffled only
IGNORED = frozenset({"NewConnectedLine", "Hold", "Unhold"})  # half of what could change places, and no fact to the model
TIMES = ("started_at", "answered_at", "ended_at", "talk_seconds", "wait_seconds")


def recorded(trace: Path) -> list[Told]:
    events = read_trace(trace.name, trace.read_bytes(), trace.with_name(trace.name + ".json").read_bytes())
    return told([(event, at) for event, at in events if event.event not in IGNORED])


def played(order: Iterable[Told], times: list[float]) -> dict[str, Any]:
    """Per call its record, times only as told or not, and whose popup opened and closed and who answered, each as often as it was told."""
    model, records, signals = Correlator(VIEW), dict[str, Call](), defaultdict[str, list[str]](list)

    def take(changes: list[CallChange]) -> None:
        for change in changes:
            records[change.call.id] = change.call
            for signal in change.signals:
                if isinstance(signal, Ringing):
                    signals[change.call.id] += [f"{extension} opens" for extension in signal.extensions]
                elif isinstance(signal, StoppedRinging | Ended):
                    signals[change.call.id] += [f"{extension} closes" for extension in signal.extensions]
                elif isinstance(signal, Answered):
                    signals[change.call.id].append(f"answered by {signal.by}")

    for one, at in zip(order, times, strict=True):
        take(model.feed(one.event, at))
    take(model.tick(times[-1] + 60))
    return {id: _timeless(call) | {"signals": sorted(signals[id])} for id, call in records.items()}


def _timeless(call: Call) -> dict[str, Any]:
    record = call.to_json()  # a leg of a consultation may end with it or just before: then with its cause
    legs = sorted((leg["channel"], leg["number"], leg["kind"]) for leg in record.pop("legs"))
    return record | {"legs": legs} | {name: record[name] is not None for name in TIMES}


def names(order: list[Told], recording: list[Told]) -> str:
    """Where an order parts from the recording, for whoever reads the failure."""
    changed = [n for n, (one, other) in enumerate(zip(order, recording, strict=True)) if one is not other]
    return f"from {changed[0]}: " + ", ".join(order[n].event.event for n in changed)


@pytest.mark.parametrize("trace", WHOLE, ids=lambda trace: trace.parent.name)
def test_every_event_may_come_as_late_or_as_early_as_its_thread_allows(trace: Path) -> None:
    recording = recorded(trace)
    times = [one.at for one in recording]
    expected = played(recording, times)
    for order in as_late_and_as_early(recording):
        assert played(order, times) == expected, names(order, recording)


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: f"{trace.parent.name}-{trace.stem}")
def test_threads_may_take_turns_in_any_way(trace: Path) -> None:
    recording = recorded(trace)
    times = [one.at for one in recording]
    expected = played(recording, times)
    for seed in range(SHUFFLES):
        order = shuffled(recording, random.Random(seed))
        assert played(order, times) == expected, f"seed {seed}, {names(order, recording)}"


def test_the_orders_are_many_and_keep_what_threads_keep() -> None:
    [trace] = [t for t in TRACES if (t.parent.name, t.stem) == ("blind-by-phone", "asterisk-22")]
    recording = recorded(trace)
    orders = [*as_late_and_as_early(recording), shuffled(recording, random.Random(0))]
    assert len(orders) > len(recording) / 2
    assert any([one.event.event for one in order].index("BlindTransfer") > [one.event.event for one in order].index("Hangup") for order in orders)
    for order in orders:
        place = {id(one): n for n, one in enumerate(order)}
        assert len(place) == len(recording)
        for n, one in enumerate(recording):
            assert all(place[id(one)] < place[id(other)] for other in recording[n + 1 :] if one.precedes(other))
