"""A PBX's plain day, played by real user agents. Each scenario says what happened, as the phones saw it.

The live tests play these; the golden traces are recordings of them. How calls are moved about is in moves.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lab import gathered, moves
from lab.stage import (
    ANNOUNCEMENT,
    CUSTOMER,
    DEAD,
    GROUP,
    MAILBOX,
    MENU,
    NOBODYS_LINE,
    ONE_PHONE,
    SALES,
    SCENARIOS,
    SUPPORT,
    UNREGISTERED,
    Scenario,
    Stage,
    customer_calls,
    inbound,
    internal,
    outbound,
    rings_until_refused,
    scenario,
    talked,
)

__all__ = ["CUSTOMER", "SCENARIOS", "Scenario", "Stage", "gathered", "moves"]


@scenario("A customer calls, 150 picks up, they talk, the customer hangs up.", inbound("answered", rang=["150"], line=ONE_PHONE, **talked("150")))
async def inbound_answered(stage: Stage) -> None:
    await stage.phones.behave("150", "answer", delay_s=0.4)
    await customer_calls(stage, ONE_PHONE)


@scenario("150 answers and is the one who hangs up.", inbound("answered", rang=["150"], **talked("150")))
async def inbound_manager_hangs_up(stage: Stage) -> None:
    await stage.phones.behave("150", "answer", talk_s=1)
    await rings_until_refused(stage, ONE_PHONE)


@scenario("150 is let ring out; the PBX gives up.", inbound("no_answer", rang=["150"]))
async def inbound_not_answered(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    await rings_until_refused(stage, ONE_PHONE)


@scenario("150 is engaged.", inbound("busy"))
async def inbound_busy(stage: Stage) -> None:
    await stage.phones.behave("150", "hangup", arg="17")
    await rings_until_refused(stage, ONE_PHONE)


@scenario("150 rings and presses reject.", inbound("rejected", rang=["150"]))
async def inbound_declined(stage: Stage) -> None:
    await stage.phones.behave("150", "decline", delay_s=0.5, arg="21")
    await rings_until_refused(stage, ONE_PHONE)


@scenario("The customer hangs up while 150 rings.", inbound("cancelled", rang=["150"]))
async def inbound_cancelled(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    call = await stage.phones.call(ONE_PHONE, caller=CUSTOMER)
    await stage.phones.rings("150")
    await asyncio.sleep(0.8)
    await call.hangup()


@scenario("The line leads to a phone that is not registered.", inbound("unavailable"))
async def inbound_unregistered(stage: Stage) -> None:
    await rings_until_refused(stage, UNREGISTERED)


@scenario("The line leads to a phone that is registered and dead.", inbound("unavailable"))
async def inbound_dead_phone(stage: Stage) -> None:
    await rings_until_refused(stage, DEAD)


@scenario("The customer dials a number of ours that nobody set up.", inbound("unavailable"))
async def inbound_unknown_line(stage: Stage) -> None:
    await rings_until_refused(stage, NOBODYS_LINE)


@scenario("Two phones ring, 151 is faster.", inbound("answered", rang=["150", "151"], line=GROUP, **talked("151")))
async def ring_group(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    await stage.phones.behave("151", "answer", delay_s=0.8)
    await customer_calls(stage, GROUP)


@scenario("Two phones ring and nobody picks up.", inbound("no_answer", rang=["150", "151"]))
async def ring_group_not_answered(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    await stage.phones.behave("151", "ring")
    await rings_until_refused(stage, GROUP)


@scenario("A queue rings both, 150 picks up.", inbound("answered", rang=["150", "151"], queue="sales", **talked("150")))
async def queue_ringall(stage: Stage) -> None:
    await stage.phones.behave("150", "answer", delay_s=0.8)
    await stage.phones.behave("151", "ring")
    call = await stage.phones.call(SALES, caller=CUSTOMER)
    await stage.phones.answered("150")
    await asyncio.sleep(1)
    await call.hangup()


@scenario("A queue rings 152, who lets it ring, then 153, who answers.", inbound("answered", rang=["152", "153"], queue="support", **talked("153")))
async def queue_linear(stage: Stage) -> None:
    await stage.phones.behave("152", "ring")
    await stage.phones.behave("153", "answer", delay_s=0.4)
    call = await stage.phones.call(SUPPORT, caller=CUSTOMER)
    await stage.phones.answered("153")
    await asyncio.sleep(1)
    await call.hangup()


@scenario("The customer loses patience in the queue.", inbound("cancelled", rang=["150", "151"], queue="sales"))
async def queue_abandoned(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    await stage.phones.behave("151", "ring")
    call = await stage.phones.call(SALES, caller=CUSTOMER)
    await asyncio.gather(stage.phones.rings("150"), stage.phones.rings("151"))
    await asyncio.sleep(1)
    await call.hangup()


@scenario("The queue gives up after its time.", inbound("no_answer", rang=["152", "153"], queue="support"))
async def queue_timed_out(stage: Stage) -> None:
    await stage.phones.behave("152", "ring")
    await stage.phones.behave("153", "ring")
    await rings_until_refused(stage, SUPPORT, 20)


@scenario("The customer listens to the menu, presses 1 and gets 150.", inbound("answered", rang=["150"], line=MENU, **talked("150")))
async def menu_then_answered(stage: Stage) -> None:
    await stage.phones.behave("150", "answer", delay_s=0.4)
    call = await stage.phones.call(MENU, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(0.8)
    await call.press("1")
    await stage.phones.answered("150")
    await asyncio.sleep(1)
    await call.hangup()


@scenario("The customer hangs up in the menu.", inbound("cancelled", line=MENU))
async def menu_given_up(stage: Stage) -> None:
    call = await stage.phones.call(MENU, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(0.8)
    await call.hangup()


@scenario("150 does not answer, the customer reaches the mailbox.", inbound("voicemail", rang=["150"]))
async def voicemail(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    call = await stage.phones.call(MAILBOX, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(1.5)
    await call.hangup()


@scenario("An announcement plays and the PBX hangs up.", inbound("unavailable", line=ANNOUNCEMENT))
async def announcement_only(stage: Stage) -> None:
    await rings_until_refused(stage, ANNOUNCEMENT)


@scenario("The caller's number is withheld.", inbound("answered", customer_number=None, rang=["150"], **talked("150")))
async def anonymous(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    call = await stage.phones.call(ONE_PHONE, caller="anonymous")
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(1)
    await call.hangup()


@scenario(
    "A Cyrillic name with a comma and quotes.",
    inbound("answered", customer_name="ООО «Восток, север»", rang=["150"], **talked("150")),
)
async def cyrillic_name(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    await customer_calls(stage, ONE_PHONE, name="ООО «Восток, север»")


@scenario("The provider sends the line's number without its plus.", inbound("answered", line=ONE_PHONE, rang=["150"], **talked("150")))
async def line_without_plus(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    await customer_calls(stage, ONE_PHONE.lstrip("+"))


@scenario(
    "150 forwards to 152, who answers.",
    inbound(
        "answered", rang=["150", "152"], **talked("152"),
        transfers=[{"kind": "forward", "from": "150", "to": "152", "completed": True}],
    ),
)  # fmt: skip
async def forwarded_inside(stage: Stage) -> None:
    await stage.phones.behave("150", "forward", arg="152", delay_s=0.4)
    await stage.phones.behave("152", "answer", delay_s=0.4)
    await customer_calls(stage, ONE_PHONE)


@scenario(
    "150 forwards to a mobile, where the call is taken.",
    inbound(
        "answered", rang=["150"], **talked("+375291111111"),
        transfers=[{"kind": "forward", "from": "150", "to": "+375291111111", "completed": True}],
    ),
)  # fmt: skip
async def forwarded_to_mobile(stage: Stage) -> None:
    await stage.phones.behave("150", "forward", arg="+375291111111", delay_s=0.4)
    await stage.phones.behave("375291111111", "answer", delay_s=0.4)
    await customer_calls(stage, ONE_PHONE)


async def _manager_dials(stage: Stage, to: str, talk_s: float = 1.5) -> None:
    call = await stage.phones.call(to, phone="151")
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(talk_s)
    await call.hangup()


async def _manager_dials_in_vain(stage: Stage, to: str) -> None:
    call = await stage.phones.call(to, phone="151")
    await asyncio.wait_for(call.ended.wait(), 30)


@scenario("151 calls a customer, who answers.", outbound("answered", line=GROUP, **talked("151")))
async def outbound_answered(stage: Stage) -> None:
    await stage.phones.behave(CUSTOMER, "answer")
    await _manager_dials(stage, CUSTOMER)


@scenario("151 dials the national form, 80…; the customer answers.", outbound("answered", **talked("151")))
async def outbound_national_form(stage: Stage) -> None:
    await stage.phones.behave("80296254070", "answer")
    await _manager_dials(stage, "80296254070")


@scenario("The customer's phone rings; 151 gives up.", outbound("cancelled"))
async def outbound_cancelled(stage: Stage) -> None:
    await stage.phones.behave(CUSTOMER, "ring")
    call = await stage.phones.call(CUSTOMER, phone="151")
    await stage.phones.rings(CUSTOMER)
    await asyncio.sleep(0.8)
    await call.hangup()


@scenario("The customer is engaged.", outbound("busy"))
async def outbound_busy(stage: Stage) -> None:
    await stage.phones.behave(CUSTOMER, "hangup", arg="17")
    await _manager_dials_in_vain(stage, CUSTOMER)


@scenario("The customer presses reject.", outbound("rejected"))
async def outbound_declined(stage: Stage) -> None:
    await stage.phones.behave(CUSTOMER, "decline", arg="21", delay_s=0.5)
    await _manager_dials_in_vain(stage, CUSTOMER)


@scenario("The number does not exist.", outbound("unavailable"))
async def outbound_unallocated(stage: Stage) -> None:
    await stage.phones.behave(CUSTOMER, "hangup", arg="1")
    await _manager_dials_in_vain(stage, CUSTOMER)


@scenario("The provider has no circuit.", outbound("unavailable"))
async def outbound_congestion(stage: Stage) -> None:
    await stage.phones.behave(CUSTOMER, "hangup", arg="34")
    await _manager_dials_in_vain(stage, CUSTOMER)


@scenario("The network lets it ring and then says that nobody answers.", outbound("no_answer"))
async def outbound_not_answered(stage: Stage) -> None:
    await stage.phones.behave(CUSTOMER, "decline", arg="19", delay_s=1.5)
    await _manager_dials_in_vain(stage, CUSTOMER)


@scenario("The dialplan bars the destination.", outbound("rejected", customer_number="+74951234567"))
async def outbound_barred(stage: Stage) -> None:
    await _manager_dials_in_vain(stage, "81074951234567")


@scenario("151 calls 150, who answers.", internal("answered", "150", rang=["150"], **talked("150")))
async def internal_answered(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    await _manager_dials(stage, "150")


@scenario("151 calls 150, who is engaged.", internal("busy", "150"))
async def internal_busy(stage: Stage) -> None:
    await stage.phones.behave("150", "hangup", arg="17")
    await _manager_dials_in_vain(stage, "150")


@scenario("151 calls a phone that is not registered.", internal("unavailable", "159"))
async def internal_unregistered(stage: Stage) -> None:
    await _manager_dials_in_vain(stage, "159")


CLICK: dict[str, Any] = {"initiator": "150", "click_to_call": True}


@scenario("Click-to-call, endpoint first: 150 picks up, then the customer.", outbound("answered", **talked("150"), **CLICK))
async def click_endpoint_first(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    await stage.phones.behave(CUSTOMER, "answer", delay_s=0.6)
    await stage.originate("PJSIP/150", Context="inoffice", Exten=CUSTOMER, Priority="1", CallerID=CUSTOMER, ChannelId="click-ep-1")
    await stage.phones.answered(CUSTOMER)
    await asyncio.sleep(1)
    await stage.phones.hangup_callee("150")


@scenario("Click-to-call by Local and Dial: 150 picks up, then the customer.", outbound("answered", **talked("150"), **CLICK))
async def click_local_dial(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    await stage.phones.behave(CUSTOMER, "answer", delay_s=0.6)
    await stage.originate(
        "Local/150@inoffice", Application="Dial", Data=f"Local/{CUSTOMER}@inoffice", CallerID=CUSTOMER,
        ChannelId="click-local-1", OtherChannelId="click-local-2",
    )  # fmt: skip
    await stage.phones.answered(CUSTOMER)
    await asyncio.sleep(1)
    await stage.phones.hangup_callee(CUSTOMER)


@scenario("Click-to-call: 150 picks up, the customer is engaged.", outbound("busy", **CLICK))
async def click_customer_busy(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    await stage.phones.behave(CUSTOMER, "hangup", arg="17")
    await stage.originate("PJSIP/150", Context="inoffice", Exten=CUSTOMER, Priority="1", CallerID=CUSTOMER, ChannelId="click-busy-1")
    await stage.phones.rings("150")
    await asyncio.sleep(1)


@scenario("Click-to-call: 150 picks up and hangs up while the customer rings.", outbound("cancelled", **CLICK))
async def click_given_up(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    await stage.phones.behave(CUSTOMER, "ring")
    await stage.originate("PJSIP/150", Context="inoffice", Exten=CUSTOMER, Priority="1", CallerID=CUSTOMER, ChannelId="click-up-1")
    await stage.phones.rings(CUSTOMER)
    await asyncio.sleep(0.8)
    await stage.phones.hangup_callee("150")


@scenario("Click-to-call: 150 does not pick up.", outbound("no_answer", **CLICK))
async def click_manager_absent(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    await stage.originate("PJSIP/150", Context="inoffice", Exten=CUSTOMER, Priority="1", CallerID=CUSTOMER, ChannelId="click-absent-1")
    await stage.phones.rings("150")
    await asyncio.sleep(2.5)


LOCAL = {"Context": "inoffice", "Exten": CUSTOMER, "Priority": "1", "CallerID": CUSTOMER}


@scenario("Click-to-call by Local and Exten: 150 picks up, the customer is engaged.", outbound("busy", **CLICK))
async def click_local_customer_busy(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    await stage.phones.behave(CUSTOMER, "hangup", arg="17")
    await stage.originate("Local/150@inoffice", **LOCAL, ChannelId="vochid-click-busy", OtherChannelId="vochid-click-busy-2")
    await stage.phones.rings("150")
    await asyncio.sleep(1)


@scenario("Click-to-call by Local and Exten: 150 does not pick up.", outbound("no_answer", **CLICK))
async def click_local_manager_absent(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    await stage.originate("Local/150@inoffice", **LOCAL, ChannelId="vochid-click-absent", OtherChannelId="vochid-click-absent-2")
    await stage.phones.rings("150")
    await asyncio.sleep(2.5)


TWENTY = [f"+3752962540{n:02d}" for n in range(20)]


@scenario(
    "Twenty customers call within a second; all reach somebody.",
    *({"direction": "in", "customer_number": number, "result": "answered", "answered_by": "150", "gap": False} for number in TWENTY),
)
async def twenty_at_once(stage: Stage) -> None:
    await stage.phones.behave("150", "answer", delay_s=0.5)
    calls = []
    for number in TWENTY:
        calls.append(await stage.phones.call(ONE_PHONE, caller=number))
        await asyncio.sleep(0.04)
    await asyncio.gather(*(asyncio.wait_for(call.answered.wait(), 30) for call in calls))
    await asyncio.sleep(0.7)
    for call in calls:
        await call.hangup()
