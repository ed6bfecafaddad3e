"""CDR of a real Asterisk against what the phones lived through: the same scenarios, told by Master.csv instead of events."""

from __future__ import annotations

import json
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from daemon.cdr.conversations import call_of, conversations
from daemon.cdr.rows import made_absolute, name_in_userfield, read_csv, row_of
from daemon.model.call import Call
from tests.golden.view import VIEW

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
MINSK = ZoneInfo("Europe/Minsk")
FIELDS = ("direction", "customer_number", "result", "missed", "answered_by", "last_talked", "initiator", "queue")

# What CDR cannot tell: it has no row for what never came to a dial, and knows causes only where the dialplan wrote them down.
KNOWN_DIFFERENCES = {
    "inbound-dead-phone": {"result"},
}


def recorded() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for line in (HERE / "asterisk-22.txt").read_text().splitlines():
        if line.startswith("## "):
            sections[line[3:]] = []
        elif sections:
            sections[list(sections)[-1]].append(line)
    return sections


def calls_of(lines: list[str]) -> list[Call]:
    return [call_of(rows, VIEW) for rows in conversations(made_absolute(list(read_csv(lines)), MINSK))]


@pytest.mark.parametrize(("name", "lines"), [(n, lines) for n, lines in recorded().items() if lines])
def test_cdr_of_a_scenario_gives_the_calls_that_the_phones_lived_through(name: str, lines: list[str]) -> None:
    expected = json.loads((GOLDEN / name / "scenario.json").read_text())["expect"]
    found = sorted((call.to_json() for call in calls_of(lines)), key=lambda call: call["customer_number"] or "")
    wanted = sorted(expected, key=lambda call: call["customer_number"] or "")
    assert len(found) == len(wanted)
    for call, want in zip(found, wanted, strict=True):
        differing = {field for field in FIELDS if field in want and call[field] != want[field]}
        assert differing <= KNOWN_DIFFERENCES.get(name, set()), {field: (call[field], want[field]) for field in differing}
        assert call["gap"]
        assert call["started_at"] <= call["ended_at"]


def test_a_userfield_that_looks_like_a_file_of_sound_names_the_recording() -> None:
    assert name_in_userfield("audio:q-200-1.2.wav") == "q-200-1.2.wav"
    assert name_in_userfield(" /m/1.mp3 ") == "/m/1.mp3"
    for other in ("", "note", "audio:", "a\nb.wav", "x" * 2_000 + ".wav"):
        assert name_in_userfield(other) is None
    base = {"calldate": "2026-11-21 08:00:00", "channel": "PJSIP/150-1", "userfield": "audio:a.wav"}
    rows = [row_of(base), row_of({**base, "recordingfile": "b.wav"}), row_of({**base, "userfield": "customer 17"}), row_of({**base, "userfield": None})]
    assert [row.recording for row in rows if row] == ["a.wav", "b.wav", "", ""]
