"""Who is who is kept between events, and judged anew as soon as something says otherwise."""

from __future__ import annotations

from dataclasses import replace

from daemon.calls.correlator import Correlator
from daemon.calls.replay import JsonEvent
from daemon.model.call import Direction
from tests.golden.view import VIEW


def arrives(number: str | None) -> JsonEvent:
    return JsonEvent(
        {"Event": "Newchannel", "Channel": "PJSIP/provider-1", "ChannelState": "4", "CallerIDNum": number, "Context": "from-trunk",
         "Exten": "+375171112230", "Uniqueid": "1", "Linkedid": "1"}
    )  # fmt: skip


def rings(name: str = "PJSIP/150-2", uniqueid: str = "2") -> list[JsonEvent]:
    channel = {"Channel": name, "Context": "inoffice", "Uniqueid": uniqueid, "Linkedid": "1"}
    caller = {"Channel": "PJSIP/provider-1", "Uniqueid": "1", "Linkedid": "1", "Exten": "150"}
    return [
        JsonEvent({"Event": "Newchannel", "ChannelState": "0", **channel}),
        JsonEvent({"Event": "DialBegin", **caller, **{f"Dest{key}": value for key, value in channel.items()}}),
        JsonEvent({"Event": "Newstate", "ChannelState": "5", **channel}),
    ]


def test_a_number_that_the_dialplan_sets_later_is_the_customers() -> None:
    model = Correlator(VIEW)
    [change] = model.feed(arrives(None), 1.0)
    assert change.call.customer_number is None
    model.feed(JsonEvent({"Event": "NewCallerid", "Channel": "PJSIP/provider-1", "Uniqueid": "1", "Linkedid": "1", "CallerIDNum": "+375296254070"}), 1.1)
    [change] = [change for event in rings() for change in model.feed(event, 1.2)][-1:]
    assert (change.call.customer_number, change.call.rang) == ("+375296254070", ("150",))


def test_a_call_in_progress_goes_on_under_new_settings() -> None:
    model = Correlator(VIEW)
    [change] = model.feed(arrives("+375296254070"), 1.0)
    assert change.call.line == "+375171112230"
    model.view = replace(VIEW, lines=("375171112230",))
    [change] = [change for event in rings() for change in model.feed(event, 1.2)][-1:]
    assert change.call.line == "375171112230"


def test_an_adopted_call_whose_customer_was_not_heard_of_again_goes_on() -> None:
    """What a former process stored says that the customer came from outside; no channel here says it."""
    before = Correlator(VIEW)
    [change] = before.feed(arrives("+375296254070"), 1.0)
    model = Correlator(VIEW)
    model.adopt([change.call])
    phone = {"Channel": "PJSIP/150-2", "Context": "inoffice", "Uniqueid": "2", "Linkedid": "1"}
    events = [JsonEvent({"Event": "Newchannel", "ChannelState": "0", **phone}), JsonEvent({"Event": "Newstate", "ChannelState": "6", **phone})]
    changes = [change for event in events for change in model.feed(event, 2.0)]
    assert changes
    assert {(change.call.id, change.call.direction, change.call.customer_number) for change in changes} == {(changes[0].call.id, Direction.IN, "+375296254070")}
    assert changes[-1].call.line == "+375171112230"
