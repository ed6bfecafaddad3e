"""What scenarios are made of: the stage they play on, how they are written down, and the parts that records have in common.

`expect` is the truth from the phones' side: which records there must be, and their fields. It never comes from the
call model's own output.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from daemon.ami.link import Link
from lab.phones import Phones, steer
from lab.softphone import Softphones

CUSTOMER = "+375296254070"
OTHER_CUSTOMER = "+375447654321"
ONE_PHONE, GROUP, MENU, MAILBOX = "+375171112230", "+375171112233", "+375171112234", "+375171112235"
SALES, SUPPORT, UNREGISTERED, DEAD = "+375171112236", "+375171112237", "+375171112238", "+375171112239"
ANNOUNCEMENT, NOBODYS_LINE = "+375171112240", "+375170009999"


@dataclass
class Stage:
    """What a scenario plays with: the user agents, and a manager link to the PBX for click-to-call."""

    phones: Phones
    pbx: Link
    soft: Softphones

    async def originate(self, channel: str, **values: str) -> None:
        """Click-to-call as vochid does it; keys are Originate's headers."""
        await self.pbx.request(steer("Originate", ("Channel", channel), ("Async", "true"), ("Timeout", "2500"), *values.items()))


Play = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """`says` is one sentence for people; `expect` a list of partial records in order of start."""

    name: str
    says: str
    play: Play
    expect: list[dict[str, Any]]


SCENARIOS: dict[str, Scenario] = {}


def scenario(says: str, *expect: dict[str, Any]) -> Callable[[Play], Play]:
    """Registers a scenario under its function's name."""

    def register(play: Play) -> Play:
        name = play.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(name, says, play, list(expect))
        return play

    return register


def inbound(result: str, **more: Any) -> dict[str, Any]:
    """What every inbound record of these scenarios has."""
    base = {"direction": "in", "customer_number": CUSTOMER, "result": result, "missed": result != "answered", "gap": False}
    return {**base, "answered_by": None, "last_talked": None, "rang": [], "click_to_call": False, **more}


def outbound(result: str, **more: Any) -> dict[str, Any]:
    """What every outbound record of these scenarios has."""
    base = {"direction": "out", "customer_number": CUSTOMER, "result": result, "missed": False, "initiator": "151", "rang": []}
    return {**base, "answered_by": None, "last_talked": None, "gap": False, **more}


def talked(number: str) -> dict[str, str]:
    """The first and the last to talk are the same."""
    return {"answered_by": number, "last_talked": number}


async def customer_calls(stage: Stage, line: str, talk_s: float = 1.2, name: str = "") -> None:
    call = await stage.phones.call(line, caller=CUSTOMER, caller_name=name)
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(talk_s)
    await call.hangup()


async def rings_until_refused(stage: Stage, line: str, timeout_s: float = 45) -> None:
    call = await stage.phones.call(line, caller=CUSTOMER)
    await asyncio.wait_for(call.ended.wait(), timeout_s)


def internal(result: str, called: str, **more: Any) -> dict[str, Any]:
    """What every internal record of these scenarios has."""
    base = {"direction": "internal", "customer_number": called, "initiator": "151", "result": result, "missed": False}
    return {**base, "answered_by": None, "rang": [], "line": None, **more}
