"""Calls that are moved about: transfers, pickup, parking, conferences, hold, several phones, mobiles, reserve trunks."""

from __future__ import annotations

import asyncio
from typing import Any

from lab.office import MOBILES
from lab.phones import Placed
from lab.softphone import Line
from lab.stage import CUSTOMER, GROUP, ONE_PHONE, OTHER_CUSTOMER, Stage, inbound, internal, outbound, scenario, talked

SOFT, KEYS, FOLLOW_ME, ROOM, TWO_PHONES, BEHIND, DESK_AND_MOBILE = (f"+3751711122{n}" for n in range(41, 48))
MOBILE = MOBILES[0]


def moved(kind: str, source: str, target: str | None, completed: bool = True) -> dict[str, Any]:
    """One transfer as the record shows it."""
    return {"kind": kind, "from": source, "to": target, "completed": completed}


def talk(first: str, last: str) -> dict[str, str]:
    """Who talked first and who last."""
    return {"answered_by": first, "last_talked": last}


async def _reaches_161(stage: Stage) -> tuple[Placed, Line]:
    """A customer calls 161, who answers."""
    stage.soft.behave("161", "answer")
    call = await stage.phones.call(SOFT, caller=CUSTOMER)
    line = await stage.soft.called("161")
    await line.talk()
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(0.6)
    return call, line


async def _reaches_150(stage: Stage) -> Placed:
    """A customer calls 150, who answers and may transfer by keys."""
    await stage.phones.behave("150", "answer")
    call = await stage.phones.call(KEYS, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(0.6)
    return call


async def _hang_up(call: Placed, talk_s: float = 0.8) -> None:
    await asyncio.sleep(talk_s)
    await call.hangup()


# -- by the phone: REFER and REFER with Replaces ------------------------------------------------------------------------------


CONSULT: dict[str, Any] = {"initiator": "161", "consult": True}
ASKED_150: dict[str, Any] = {"rang": ["150"], **talk("150", "150")}


@scenario(
    "161 asks 150 on a second line and hands the customer over (REFER with Replaces).",
    inbound("answered", rang=["161"], **talk("161", "150"), transfers=[moved("attended", "161", "150")]),
    internal("answered", "150", **CONSULT, **ASKED_150),
)
async def attended_by_phone(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave("150", "answer")
    await line.hold()
    consult = stage.soft.call("161", "150")
    await consult.talk()
    await asyncio.sleep(0.8)
    await line.refer("150", consult)
    await _hang_up(call)


@scenario(
    "161 calls a customer, asks 150 and hands over.",
    outbound("answered", initiator="161", **talk("161", "150"), transfers=[moved("attended", "161", "150")]),
    internal("answered", "150", **CONSULT, **ASKED_150),
)
async def attended_of_an_outgoing_call(stage: Stage) -> None:
    await stage.phones.behave(CUSTOMER, "answer")
    await stage.phones.behave("150", "answer")
    line = stage.soft.call("161", CUSTOMER)
    await line.talk()
    await asyncio.sleep(0.6)
    await line.hold()
    consult = stage.soft.call("161", "150")
    await consult.talk()
    await asyncio.sleep(0.6)
    await line.refer("150", consult)
    await asyncio.sleep(0.8)
    await stage.phones.hangup_callee(CUSTOMER)


@scenario(
    "161 asks a colleague's mobile and hands the customer over.",
    inbound("answered", rang=["161"], **talk("161", MOBILE), transfers=[moved("attended", "161", MOBILE)]),
    internal("answered", MOBILE, **CONSULT, **talked(MOBILE)),
)
async def attended_to_mobile(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave(MOBILE, "answer")
    await line.hold()
    consult = stage.soft.call("161", MOBILE)
    await consult.talk()
    await asyncio.sleep(0.6)
    await line.refer(MOBILE, consult)
    await _hang_up(call)


@scenario(
    "161 asks 150, who does not want the call; 161 goes back to the customer.",
    inbound("answered", rang=["161"], **talked("161"), transfers=[]),
    internal("answered", "150", initiator="161", consult=False, **ASKED_150),
)
async def consulted_and_kept(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave("150", "answer")
    await line.hold()
    consult = stage.soft.call("161", "150")
    await consult.talk()
    await asyncio.sleep(0.6)
    await consult.hangup()
    await line.hold(False)
    await _hang_up(call)


@scenario(
    "161 calls 150 on a second line and hands over while it rings; 150 answers (blonde).",
    inbound("answered", rang=["161", "150"], **talk("161", "150"), transfers=[moved("blonde", "161", "150")]),
    internal("cancelled", "150", rang=["150"], **CONSULT),
)
async def blonde_by_phone(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave("150", "answer", delay_s=2)
    await line.hold()
    consult = stage.soft.call("161", "150")
    await asyncio.wait_for(consult.ringing.wait(), 30)
    await asyncio.sleep(0.5)
    await line.refer("150", consult)
    await asyncio.sleep(2)
    await _hang_up(call)


@scenario(
    "161 hands over while 150 rings; 150 lets it ring until the customer hangs up.",
    inbound("answered", rang=["161", "150"], **talked("161"), transfers=[moved("blonde", "161", "150", False)]),
    internal("cancelled", "150", rang=["150"], **CONSULT),
)
async def blonde_not_answered(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave("150", "ring")
    await line.hold()
    consult = stage.soft.call("161", "150")
    await asyncio.wait_for(consult.ringing.wait(), 30)
    await asyncio.sleep(0.5)
    await line.refer("150", consult)
    await asyncio.sleep(1)
    await call.hangup()


@scenario(
    "161 sends the customer on to 150, who answers (REFER).",
    inbound("answered", rang=["161", "150"], **talk("161", "150"), transfers=[moved("blind", "161", "150")]),
)
async def blind_by_phone(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave("150", "answer", delay_s=0.6)
    await line.refer("150")
    await asyncio.sleep(1.2)
    await _hang_up(call)


@scenario(
    "161 calls a customer and sends them on to 150.",
    outbound("answered", initiator="161", **talk("161", "150"), transfers=[moved("blind", "161", "150")]),
)
async def blind_of_an_outgoing_call(stage: Stage) -> None:
    await stage.phones.behave(CUSTOMER, "answer")
    await stage.phones.behave("150", "answer")
    line = stage.soft.call("161", CUSTOMER)
    await line.talk()
    await asyncio.sleep(0.6)
    await line.refer("150")
    await asyncio.sleep(1.6)
    await stage.phones.hangup_callee(CUSTOMER)


@scenario(
    "161 sends the customer on to a mobile.",
    inbound("answered", rang=["161"], **talk("161", MOBILE), transfers=[moved("blind", "161", MOBILE)]),
)
async def blind_to_mobile(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave(MOBILE, "answer")
    await line.refer(MOBILE)
    await asyncio.sleep(1.2)
    await _hang_up(call)


@scenario(
    "161 sends the customer on to 150, who is engaged.",
    inbound("answered", rang=["161"], **talked("161"), transfers=[moved("blind", "161", "150", False)]),
)
async def blind_to_busy(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave("150", "hangup", arg="17")
    await line.refer("150")
    await asyncio.wait_for(call.ended.wait(), 30)


@scenario(
    "161 sends the customer on to a number that does not exist; the PBX refuses and they go on talking.",
    inbound("answered", rang=["161"], **talked("161"), transfers=[]),
)
async def blind_to_nowhere(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await line.refer("77")
    await _hang_up(call, 1)


@scenario(
    "161 sends the customer on, 150 does not answer, the call comes back to 161.",
    inbound("answered", rang=["161", "150"], **talked("161"), transfers=[moved("blind", "161", "150", False)]),
)
async def blind_returned(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave("150", "ring")
    stage.soft.behave("161", "answer")
    await line.refer("640")
    again = await stage.soft.called("161")
    await again.talk()
    await _hang_up(call)


@scenario(
    "161 sends the customer on to a ring group; 151 is faster than 150.",
    inbound("answered", rang=["161", "150", "151"], **talk("161", "151"), transfers=[moved("blind", "161", "151")]),
)
async def blind_to_ring_group(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave("150", "ring")
    await stage.phones.behave("151", "answer", delay_s=0.6)
    await line.refer("600")
    await asyncio.sleep(1.4)
    await _hang_up(call)


@scenario(
    "161 sends the customer on to a queue, where 150 takes the call.",
    inbound("answered", rang=["161", "150", "151"], queue="sales", **talk("161", "150"), transfers=[moved("blind", "161", "150")]),
)
async def blind_to_queue(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await stage.phones.behave("150", "answer", delay_s=0.6)
    await stage.phones.behave("151", "ring")
    await line.refer("601")
    await asyncio.sleep(1.6)
    await _hang_up(call)


@scenario(
    "161 sends the customer on to 162, who asks 150 and hands over: three people, one call.",
    inbound(
        "answered", rang=["161", "162"], **talk("161", "150"),
        transfers=[moved("blind", "161", "162"), moved("attended", "162", "150")],
    ),
    internal("answered", "150", initiator="162", consult=True, **ASKED_150),
)  # fmt: skip
async def chain_of_transfers(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    stage.soft.behave("162", "answer")
    await stage.phones.behave("150", "answer")
    await line.refer("162")
    second = await stage.soft.called("162")
    await second.talk()
    await asyncio.sleep(0.6)
    await second.hold()
    consult = stage.soft.call("162", "150")
    await consult.talk()
    await asyncio.sleep(0.6)
    await second.refer("150", consult)
    await _hang_up(call)


@scenario("161 redirects to 152 before answering (302 of a softphone).", inbound(
    "answered", rang=["161", "152"], **talked("152"), transfers=[moved("forward", "161", "152")],
))  # fmt: skip
async def redirected(stage: Stage) -> None:
    stage.soft.behave("161", "redirect", to="152")
    await stage.phones.behave("152", "answer")
    call = await stage.phones.call(SOFT, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call)


@scenario("161 puts the customer on hold and takes them back: one talk.", inbound("answered", rang=["161"], **talked("161"), transfers=[]))
async def hold(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await line.hold()
    await asyncio.sleep(1)
    await line.hold(False)
    await _hang_up(call)


# -- by keys: Asterisk's own features ------------------------------------------------------------------------------------------


@scenario(
    "150 presses ## and 152: the customer goes on to 152.",
    inbound("answered", rang=["150", "152"], **talk("150", "152"), transfers=[moved("blind", "150", "152")]),
)
async def blind_by_keys(stage: Stage) -> None:
    call = await _reaches_150(stage)
    await stage.phones.behave("152", "answer")
    await stage.phones.press_callee("150", "##")
    await asyncio.sleep(1.5)
    await stage.phones.press_callee("150", "152")
    await asyncio.sleep(5)
    await _hang_up(call)


@scenario(
    "150 presses *2 and 152, talks with 152 and hangs up: the customer talks with 152.",
    inbound("answered", rang=["150", "152"], **talk("150", "152"), transfers=[moved("attended", "150", "152")]),
)
async def attended_by_keys(stage: Stage) -> None:
    call = await _reaches_150(stage)
    await stage.phones.behave("152", "answer")
    await stage.phones.press_callee("150", "*2")
    await asyncio.sleep(1.5)
    await stage.phones.press_callee("150", "152")
    await asyncio.sleep(5)
    await stage.phones.hangup_callee("150")
    await _hang_up(call, 1.2)


@scenario(
    "150 presses *2 and 152 and hangs up while 152 rings; 152 answers.",
    inbound("answered", rang=["150", "152"], **talk("150", "152"), transfers=[moved("blonde", "150", "152")]),
)
async def blonde_by_keys(stage: Stage) -> None:
    call = await _reaches_150(stage)
    await stage.phones.behave("152", "answer", delay_s=3)
    await stage.phones.press_callee("150", "*2")
    await asyncio.sleep(1.5)
    await stage.phones.press_callee("150", "152")
    await asyncio.sleep(4)
    await stage.phones.hangup_callee("150")
    await asyncio.sleep(4)
    await _hang_up(call, 1.2)


@scenario(
    "150 presses *2 and 152, who does not want the call: 150 is back with the customer.",
    inbound("answered", rang=["150"], **talked("150"), transfers=[]),
)
async def attended_by_keys_refused(stage: Stage) -> None:
    call = await _reaches_150(stage)
    await stage.phones.behave("152", "hangup", arg="17")
    await stage.phones.press_callee("150", "*2")
    await asyncio.sleep(1.5)
    await stage.phones.press_callee("150", "152")
    await asyncio.sleep(6)
    await _hang_up(call, 1)


@scenario(
    "150 presses *2 and 152 and hangs up; 152 does not answer and the PBX calls 150 back.",
    inbound("answered", rang=["150", "152"], **talked("150"), transfers=[moved("blonde", "150", "152", False)]),
)
async def blonde_by_keys_returned(stage: Stage) -> None:
    call = await _reaches_150(stage)
    await stage.phones.behave("152", "ring")
    await stage.phones.press_callee("150", "*2")
    await asyncio.sleep(1.5)
    await stage.phones.press_callee("150", "152")
    await asyncio.sleep(4)
    await stage.phones.hangup_callee("150")
    await asyncio.sleep(10)
    await _hang_up(call, 1.2)


# -- pickup -----------------------------------------------------------------------------------------------------------------------


async def _picked_up(stage: Stage, dialled: str) -> None:
    await stage.phones.behave("150", "ring")
    call = await stage.phones.call(ONE_PHONE, caller=CUSTOMER)
    await asyncio.sleep(0.9)
    stage.soft.call("161", dialled)
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1)


PICKED_UP = inbound("answered", rang=["150"], **talked("161"), transfers=[moved("pickup", "150", "161")])


@scenario("150 rings, 161 dials *8 and has the call: one record, and none for the star code.", PICKED_UP)
async def pickup_by_group(stage: Stage) -> None:
    await _picked_up(stage, "*8")


@scenario("150 rings, 161 dials *34*150 and has the call.", PICKED_UP)
async def pickup_directed(stage: Stage) -> None:
    await _picked_up(stage, "*34*150")


@scenario(
    "162 rings, 161 takes the call by its busy-lamp key (INVITE with Replaces).",
    inbound("answered", rang=["161", "162"], **talked("163"), transfers=[moved("forward", "161", "162", False), moved("pickup", "162", "163")]),
)
async def pickup_by_replaces(stage: Stage) -> None:
    stage.soft.behave("161", "redirect", to="162")
    stage.soft.behave("162", "ring")
    call = await stage.phones.call(SOFT, caller=CUSTOMER)
    ringing = await stage.soft.called("162")
    await asyncio.sleep(0.6)
    stage.soft.call("163", "162", replaces=ringing)
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1)


async def _parked(line: Line) -> None:
    """The PBX has read out the slot to who parked, and they put the phone down."""
    await asyncio.wait_for(line.referred.wait(), 30)
    await line.hangup()


# -- parking ----------------------------------------------------------------------------------------------------------------------


@scenario(
    "161 parks the customer, 151 fetches them from the slot.",
    inbound("answered", rang=["161"], **talk("161", "151"), transfers=[moved("park", "161", "151")]),
)
async def parked_and_fetched(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await line.refer("700", wait=False)
    await asyncio.sleep(1)
    fetched = await stage.phones.call("701", phone="151")
    await asyncio.wait_for(fetched.answered.wait(), 30)
    await _hang_up(call, 1)
    await _parked(line)


@scenario(
    "161 parks the customer; nobody fetches them; they come back to 161, who answers.",
    inbound("answered", rang=["161"], **talked("161"), transfers=[moved("park", "161", "161")]),
)
async def parked_and_timed_out(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    stage.soft.behave("161", "answer")
    await line.refer("700", wait=False)
    again = await stage.soft.called("161")
    await again.talk()
    await _hang_up(call, 1)
    await _parked(line)


@scenario(
    "161 parks the customer, who hangs up in the slot.",
    inbound("answered", rang=["161"], **talked("161"), transfers=[moved("park", "161", None, False)]),
)
async def parked_and_given_up(stage: Stage) -> None:
    call, line = await _reaches_161(stage)
    await line.refer("700", wait=False)
    await _hang_up(call, 1)
    await _parked(line)


# -- conferences ------------------------------------------------------------------------------------------------------------------


@scenario(
    "The customer waits in the conference room; 151 and 161 come in.",
    inbound("answered", line=ROOM, **talk("151", "151")),
)
async def conference(stage: Stage) -> None:
    call = await stage.phones.call(ROOM, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(0.6)
    first = await stage.phones.call("630", phone="151")
    await asyncio.wait_for(first.answered.wait(), 30)
    await asyncio.sleep(0.6)
    second = stage.soft.call("161", "630")
    await second.talk()
    await asyncio.sleep(1)
    await second.hangup()
    await _hang_up(call, 1)
    await first.hangup()


@scenario(
    "Two customers and 151 meet in the conference room: a record for each customer.",
    inbound("answered", **talked("151")),
    inbound("answered", customer_number=OTHER_CUSTOMER, **talked("151")),
)
async def conference_of_two_customers(stage: Stage) -> None:
    first = await stage.phones.call("630", phone="151")
    await asyncio.wait_for(first.answered.wait(), 30)
    await asyncio.sleep(0.5)
    calls = []
    for number in (CUSTOMER, OTHER_CUSTOMER):
        calls.append(await stage.phones.call(ROOM, caller=number))
        await asyncio.wait_for(calls[-1].answered.wait(), 30)
        await asyncio.sleep(0.6)
    for call in calls:
        await _hang_up(call, 0.6)
    await first.hangup()


# -- several phones, mobiles, trunks ----------------------------------------------------------------------------------------------


@scenario("165 has two phones, both ring, one answers: 165 rang once.", inbound("answered", rang=["165"], **talked("165")))
async def two_devices(stage: Stage) -> None:
    await stage.phones.behave("165", "ring")
    stage.soft.behave("165", "answer", delay_s=0.8)
    call = await stage.phones.call(TWO_PHONES, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1)


@scenario("Both phones of 165 ring in vain: one missed call.", inbound("cancelled", rang=["165"]))
async def two_devices_missed(stage: Stage) -> None:
    await stage.phones.behave("165", "ring")
    stage.soft.behave("165", "ring")
    call = await stage.phones.call(TWO_PHONES, caller=CUSTOMER)
    await _hang_up(call, 1.2)


@scenario("150 answers behind a Local channel, which is optimised away.", inbound("answered", rang=["150"], line=BEHIND, **talked("150")))
async def local_optimised(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    call = await stage.phones.call(BEHIND, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1.5)


@scenario("The desk does not answer, the mobile does and confirms with 1.", inbound("answered", rang=["150"], **talked(MOBILE)))
async def follow_me_confirmed(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    await stage.phones.behave(MOBILE, "answer")
    call = await stage.phones.call(FOLLOW_ME, caller=CUSTOMER)
    await asyncio.sleep(4)
    await stage.phones.press_callee(MOBILE, "1")
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1)


@scenario("The mobile's answering machine takes the call and does not confirm: nobody talked.", inbound("no_answer", rang=["150"]))
async def follow_me_not_confirmed(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    await stage.phones.behave(MOBILE, "answer")
    call = await stage.phones.call(FOLLOW_ME, caller=CUSTOMER)
    await asyncio.wait_for(call.ended.wait(), 30)


@scenario("Desk and mobile ring together, the mobile is faster.", inbound("answered", rang=["150"], **talked(MOBILE)))
async def desk_and_mobile(stage: Stage) -> None:
    await stage.phones.behave("150", "ring")
    await stage.phones.behave(MOBILE, "answer", delay_s=0.6)
    call = await stage.phones.call(DESK_AND_MOBILE, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1)


@scenario("Desk and mobile ring together, the desk is faster.", inbound("answered", rang=["150"], **talked("150")))
async def desk_before_mobile(stage: Stage) -> None:
    await stage.phones.behave("150", "answer", delay_s=0.8)
    await stage.phones.behave(MOBILE, "ring")
    call = await stage.phones.call(DESK_AND_MOBILE, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1)


RESERVED = "+375331234567"


@scenario("The first trunk has no circuit, the reserve reaches the customer: one call.", outbound("answered", customer_number=RESERVED, **talked("151")))
async def reserve_trunk(stage: Stage) -> None:
    await stage.phones.behave("0" + RESERVED, "hangup", arg="34")
    await stage.phones.behave(RESERVED, "answer")
    call = await stage.phones.call(RESERVED, phone="151")
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1)


@scenario("Neither trunk has a circuit: one call.", outbound("unavailable", customer_number=RESERVED))
async def reserve_trunk_failed(stage: Stage) -> None:
    await stage.phones.behave("0" + RESERVED, "hangup", arg="34")
    await stage.phones.behave(RESERVED, "hangup", arg="34")
    call = await stage.phones.call(RESERVED, phone="151")
    await asyncio.wait_for(call.ended.wait(), 30)


@scenario("The gateway sends the line's own number as the caller's.", inbound("answered", customer_number=None, rang=["150"], **talked("150")))
async def trunks_own_number(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    call = await stage.phones.call(ONE_PHONE, caller=GROUP)
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1)


@scenario("A colleague calls in from a mobile: no customer.", internal("answered", ONE_PHONE, initiator=MOBILE, rang=["150"], **talked("150")))
async def colleagues_mobile(stage: Stage) -> None:
    await stage.phones.behave("150", "answer")
    call = await stage.phones.call(ONE_PHONE, caller=MOBILE)
    await asyncio.wait_for(call.answered.wait(), 30)
    await _hang_up(call, 1)


@scenario(
    "A supervisor, 161, listens to 150 and the customer: it is nobody's talk.",
    inbound("answered", rang=["150"], **talked("150"), transfers=[]),
    internal("cancelled", "*222*150", initiator="161", consult=False),
)
async def supervisor_listens(stage: Stage) -> None:
    call = await _reaches_150(stage)
    spy = stage.soft.call("161", "*222*150")
    await spy.talk()
    await asyncio.sleep(1)
    await spy.hangup()
    await _hang_up(call)
