"""A click's call in the call model: known by our channel's id, whatever part of it was not seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.calls.replay import read_trace, replay
from daemon.model.call import Direction
from tests.golden.view import VIEW

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("version", [16, 22])
@pytest.mark.parametrize("name", ["click-local-customer-busy", "click-local-manager-absent"])
def test_from_wherever_it_is_seen_it_is_a_click_and_goes_out(name: str, version: int) -> None:
    trace = GOLDEN / name / f"asterisk-{version}.ami"
    events = list(read_trace(trace.name, trace.read_bytes(), trace.with_name(trace.name + ".json").read_bytes()))
    seen = 0
    for begin in range(len(events)):
        for call in replay(iter(events[begin:]), VIEW):
            seen += 1
            assert (call.click_to_call, call.direction) == (True, Direction.OUT), begin
    assert seen > len(events) / 4
