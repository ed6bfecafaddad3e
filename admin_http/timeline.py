"""A call's legs and transfers as a picture: where each bar begins and ends, in percent of the call's length. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400)
MOST_TICKS = 6
ROW = 46  # height of a leg with its label
BAR_TOP, BAR_HEIGHT = 22, 14
TOP = 8
AXIS = 30


@dataclass(frozen=True, slots=True)
class Bar:
    """A leg: rings from `x` to `talk_x`, is up from there to `end_x`; percent. `talk_x` is None when it was never answered."""

    number: str | None
    kind: str
    y: int
    x: float
    talk_x: float | None
    end_x: float
    started_at: str
    rang_s: float
    talked_s: float | None
    cause: int | None
    channel: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """A transfer from one leg's row to another's, at `x` percent."""

    x: float
    y1: int
    y2: int
    kind: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of the axis: seconds since the call began."""

    x: float
    at_s: int


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it; heights in pixels."""

    height: int
    axis_y: int
    bars: list[Bar]
    arrows: list[Arrow]
    ticks: list[Tick]


def draw(call: Mapping[str, Any], now: float) -> Picture:
    """The picture of a call as the API shows it; one that lives goes on until `now` (Unix seconds)."""
    began = _unix(call["started_at"]) or 0.0
    ends = [_unix(leg["ended_at"]) or now for leg in call["legs"]]
    length = max([(_unix(call["ended_at"]) or now) - began, 1.0, *(end - began for end in ends)])

    def place(at: float) -> float:
        return round(min(100.0, max(0.0, (at - began) / length * 100)), 3)

    bars = []
    for row, leg in enumerate(call["legs"]):
        started, answered, ended = _unix(leg["started_at"]) or began, _unix(leg["answered_at"]), _unix(leg["ended_at"]) or now
        bars.append(
            Bar(
                leg["number"], leg["kind"], TOP + row * ROW, place(started), place(answered) if answered is not None else None, place(ended),
                leg["started_at"], round((answered if answered is not None else ended) - started, 1),
                round(ended - answered, 1) if answered is not None else None, leg["cause"], leg["channel"],
            )
        )  # fmt: skip
    axis_y = TOP + len(bars) * ROW + 4
    return Picture(axis_y + AXIS, axis_y, bars, _arrows(call, bars), _ticks(length))


def _arrows(call: Mapping[str, Any], bars: list[Bar]) -> list[Arrow]:
    found = []
    for transfer in call["transfers"]:
        source = next((bar for bar in bars if bar.number is not None and bar.number == transfer["from"]), None)
        target = next((bar for bar in bars if bar.number is not None and bar.number == transfer["to"] and bar is not source), None)
        if source is not None and target is not None:
            middle = BAR_TOP + BAR_HEIGHT // 2
            x = target.talk_x if target.talk_x is not None else target.x
            found.append(Arrow(x, source.y + middle, target.y + middle, transfer["kind"]))
    return found


def _ticks(length: float) -> list[Tick]:
    step = next((step for step in STEPS_S if length / step <= MOST_TICKS), STEPS_S[-1] * max(1, round(length / STEPS_S[-1] / MOST_TICKS)))
    return [Tick(round(at / length * 100, 3), at) for at in range(0, int(length) + 1, step)]


def _unix(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()
