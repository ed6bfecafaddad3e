"""People called one after the other or together, and others put beside a talk: app_followme, paging, whisper and barge-in."""

from __future__ import annotations

import asyncio
from typing import Any

from lab.moves import KEYS, MOBILE
from lab.phones import Placed
from lab.stage import CUSTOMER, Stage, inbound, internal, scenario, talked

FIND_ME, FIND_ME_ANYWHERE = "+375171112249", "+375171112250"
BOTH_RANG: dict[str, Any] = {"initiator": "161", "rang": ["150", "151"], "answered_by": "150"}


async def _looked_for(stage: Stage, line: str = FIND_ME) -> Placed:
    """A customer whom FollowMe answers, with the desk ringing and the mobile picking up."""
    await stage.phones.behave("150", "ring")
    await stage.phones.behave(MOBILE, "answer")
    call = await stage.phones.call(line, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    return call


async def _asked(stage: Stage, number: str) -> None:
    """Until a phone that answered has been asked whether it takes the call."""
    await stage.phones.answered(number)
    await asyncio.sleep(1.5)  # the prompts are two beeps


async def _hang_up(call: Placed, talk_s: float = 1.0) -> None:
    await asyncio.sleep(talk_s)
    await call.hangup()


@scenario("FollowMe rings the desk in vain, then the mobile, which takes the call with 1.", inbound("answered", rang=["150"], line=FIND_ME, **talked(MOBILE)))
async def find_me_confirmed(stage: Stage) -> None:
    call = await _looked_for(stage)
    await _asked(stage, MOBILE)
    await stage.phones.press_callee(MOBILE, "1")
    await _hang_up(call, 1.5)


@scenario("FollowMe finds the mobile, whose owner presses 2: nobody talked.", inbound("no_answer", rang=["150"]))
async def find_me_declined(stage: Stage) -> None:
    call = await _looked_for(stage)
    await _asked(stage, MOBILE)
    await stage.phones.press_callee(MOBILE, "2")
    await asyncio.wait_for(call.ended.wait(), 30)


@scenario("FollowMe reaches the mobile's answering machine, which presses nothing: nobody talked.", inbound("no_answer", rang=["150"]))
async def find_me_not_confirmed(stage: Stage) -> None:
    call = await _looked_for(stage)
    await asyncio.wait_for(call.ended.wait(), 30)


@scenario("The customer gives up while the mobile is asked whether it takes the call.", inbound("cancelled", rang=["150"]))
async def find_me_given_up(stage: Stage) -> None:
    call = await _looked_for(stage)
    await _asked(stage, MOBILE)
    await call.hangup()


@scenario("FollowMe asks the desk, which takes the call with 1.", inbound("answered", rang=["150"], **talked("150")))
async def find_me_at_the_desk(stage: Stage) -> None:
    await stage.phones.behave("150", "answer", delay_s=0.5)
    call = await stage.phones.call(FIND_ME, caller=CUSTOMER)
    await _asked(stage, "150")
    await stage.phones.press_callee("150", "1")
    await _hang_up(call, 1.5)


@scenario(
    "FollowMe rings desk and mobile at once: both answer, the mobile presses 1.",
    inbound("answered", rang=["150"], line=FIND_ME_ANYWHERE, **talked(MOBILE)),
)
async def find_me_anywhere(stage: Stage) -> None:
    await stage.phones.behave("150", "answer", delay_s=0.3)
    await stage.phones.behave(MOBILE, "answer", delay_s=0.3)
    call = await stage.phones.call(FIND_ME_ANYWHERE, caller=CUSTOMER)
    await _asked(stage, "150")
    await _asked(stage, MOBILE)
    await stage.phones.press_callee(MOBILE, "1")
    await _hang_up(call, 1.5)


async def _paged(stage: Stage) -> None:
    """161 speaks to all; 150's loudspeaker is on first."""
    await stage.phones.behave("150", "answer", delay_s=0.2)
    await stage.phones.behave("151", "answer", delay_s=0.8)
    page = stage.soft.call("161", "650")
    await page.talk()
    await asyncio.sleep(2)
    await page.hangup()


@scenario("161 pages 150 and 151.", internal("answered", "650", **BOTH_RANG))
async def paged(stage: Stage) -> None:
    await _paged(stage)


@scenario(
    "161 pages all while 150 talks with a customer: the customer's talk is untouched.",
    inbound("answered", rang=["150"], **talked("150"), transfers=[]),
    internal("answered", "650", **BOTH_RANG),
)
async def paged_beside_a_talk(stage: Stage) -> None:
    call = await _reached_150(stage)
    await _paged(stage)
    await _hang_up(call)


async def _reached_150(stage: Stage) -> Placed:
    await stage.phones.behave("150", "answer")
    call = await stage.phones.call(KEYS, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(0.6)
    return call


async def _supervised(stage: Stage, dialled: str) -> None:
    call = await _reached_150(stage)
    spy = stage.soft.call("161", dialled)
    await spy.talk()
    await asyncio.sleep(1)
    await spy.hangup()
    await _hang_up(call)


SUPERVISED = inbound("answered", rang=["150"], **talked("150"), transfers=[])


@scenario(
    "A supervisor, 161, whispers to 150, whom the customer goes on talking with.",
    SUPERVISED, internal("cancelled", "*223*150", initiator="161", consult=False),
)  # fmt: skip
async def supervisor_whispers(stage: Stage) -> None:
    await _supervised(stage, "*223*150")


@scenario(
    "A supervisor, 161, barges in and all three hear each other: nothing that AMI says tells it from listening.",
    SUPERVISED, internal("cancelled", "*224*150", initiator="161", consult=False),
)  # fmt: skip
async def supervisor_barges_in(stage: Stage) -> None:
    await _supervised(stage, "*224*150")
