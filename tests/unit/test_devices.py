"""Who can take a call, from device states, hints and channels."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.ami.devices import Devices
from daemon.model.device import DeviceState


@dataclass
class Said:
    event: str
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, header: str) -> str | None:
        return self.headers.get(header)


def device(name: str, state: str) -> Said:
    return Said("DeviceStateChange", {"Device": name, "State": state})


def channel(name: str, uniqueid: str, linkedid: str = "", state: str = "6") -> Said:
    return Said("Newchannel", {"Channel": name, "Uniqueid": uniqueid, "Linkedid": linkedid or uniqueid, "ChannelState": state})


def fed(*events: Said) -> Devices:
    devices = Devices("inoffice")
    for event in events:
        devices.feed(event)
    return devices


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("NOT_INUSE", "free"), ("INUSE", "busy"), ("BUSY", "busy"), ("ONHOLD", "busy"), ("RINGING", "ringing"), ("RINGINUSE", "busy"),
        ("UNAVAILABLE", "away"), ("INVALID", "away"), ("UNKNOWN", "unknown"), ("", "unknown"),
    ],
)  # fmt: skip
def test_every_state_of_asterisk_has_a_meaning(state: str, expected: str) -> None:
    assert fed(device("PJSIP/150", state)).state("150") == expected


def test_nothing_is_known_of_an_extension_before_the_pbx_has_said() -> None:
    assert fed(device("PJSIP/151", "NOT_INUSE")).state("150") is DeviceState.UNKNOWN


def test_a_channel_tells_at_once_and_also_where_the_driver_keeps_no_count() -> None:
    devices = fed(device("SIP/150", "NOT_INUSE"), channel("SIP/150-01", "1.1", state="0"))
    assert devices.state("150") is DeviceState.RINGING
    devices.feed(Said("Newstate", {"Uniqueid": "1.1", "ChannelState": "6"}))
    assert devices.state("150") is DeviceState.BUSY
    devices.feed(Said("Hangup", {"Uniqueid": "1.1"}))
    assert devices.state("150") is DeviceState.FREE


def test_a_phone_that_dials_is_busy() -> None:
    assert fed(device("PJSIP/150", "NOT_INUSE"), channel("PJSIP/150-01", "1.1", state="4")).state("150") is DeviceState.BUSY


def test_other_phones_with_a_similar_name_do_not_count() -> None:
    assert fed(device("PJSIP/150", "NOT_INUSE"), channel("PJSIP/1501-01", "1.1")).state("150") is DeviceState.FREE


def hinted(hint: str, *events: Said) -> DeviceState:
    devices = fed(*events)
    devices.set_hints([Said("ExtensionStatus", {"Exten": "150", "Context": "inoffice", "Hint": hint})])
    return devices.state("150")


def test_a_hint_names_the_devices() -> None:
    away, free = device("PJSIP/anna-desk", "UNAVAILABLE"), device("PJSIP/anna-mobile", "NOT_INUSE")
    both = "PJSIP/anna-desk&PJSIP/anna-mobile,CustomPresence:anna"
    assert hinted(both, away, free) is DeviceState.FREE
    assert hinted(both, away) is DeviceState.AWAY
    assert hinted(both, free, device("PJSIP/anna-desk", "INUSE")) is DeviceState.BUSY


def test_do_not_disturb_keeps_calls_away_and_its_absence_makes_nobody_reachable() -> None:
    hint = "PJSIP/150&Custom:dnd150"
    assert hinted(hint, device("PJSIP/150", "NOT_INUSE"), device("Custom:dnd150", "INUSE")) is DeviceState.BUSY
    assert hinted(hint, device("PJSIP/150", "NOT_INUSE"), device("Custom:dnd150", "NOT_INUSE")) is DeviceState.FREE
    assert hinted(hint, device("PJSIP/150", "UNAVAILABLE"), device("Custom:dnd150", "NOT_INUSE")) is DeviceState.AWAY


def test_the_hint_of_the_internal_context_wins() -> None:
    devices = fed(device("PJSIP/a", "NOT_INUSE"), device("PJSIP/b", "INUSE"))
    hints = [Said("", {"Exten": "150", "Context": c, "Hint": f"PJSIP/{d}"}) for c, d in (("other", "b"), ("inoffice", "a"), ("third", "b"))]
    devices.set_hints(hints)
    assert devices.state("150") is DeviceState.FREE


def test_a_number_is_tried_while_its_conversation_lasts() -> None:
    devices = fed(channel("PJSIP/provider-01", "1.1"), channel("PJSIP/150-02", "1.2", "1.1", "5"))
    assert devices.linkedid("1.2") == devices.linkedid("PJSIP/provider-01") == "1.1"
    devices.feed(Said("Hangup", {"Uniqueid": "1.2"}))
    assert devices.was_tried("1.1", "150")
    assert not devices.was_tried("1.1", "151")
    assert not devices.was_tried("9.9", "150")
    devices.feed(Said("Hangup", {"Uniqueid": "1.1"}))
    assert not devices.was_tried("1.1", "150")


def test_only_the_exact_name_of_a_live_channel_is_live() -> None:
    devices = fed(channel("PJSIP/provider-01", "1.1"))
    assert devices.is_live("PJSIP/provider-01")
    assert not devices.is_live("PJSIP/provider-02")
    assert not devices.is_live("")
    devices.feed(Said("Rename", {"Uniqueid": "1.1", "Newname": "PJSIP/provider-01<ZOMBIE>"}))
    assert not devices.is_live("PJSIP/provider-01")


def test_the_list_of_channels_heals_what_was_missed() -> None:
    devices = fed(device("PJSIP/150", "NOT_INUSE"), device("PJSIP/151", "NOT_INUSE"), channel("PJSIP/150-01", "1.1"))
    devices.set_channels([channel("PJSIP/151-02", "1.2")])
    assert (devices.state("150"), devices.state("151")) == (DeviceState.FREE, DeviceState.BUSY)


def test_after_a_lost_link_everything_is_unknown() -> None:
    devices = fed(device("PJSIP/150", "NOT_INUSE"), channel("PJSIP/150-01", "1.1"))
    devices.forget()
    assert devices.state("150") is DeviceState.UNKNOWN
    assert not devices.is_live("PJSIP/150-01")


EVENTS = st.builds(
    Said,
    st.sampled_from(["Newchannel", "Newstate", "Hangup", "Rename", "DeviceStateChange", "Newexten"]),
    st.dictionaries(
        st.sampled_from(["Uniqueid", "Linkedid", "Channel", "Newname", "ChannelState", "Device", "State"]),
        st.sampled_from(["", "1.1", "1.2", "PJSIP/150-01", "PJSIP/151-02", "0", "6", "INUSE", "x"]),
    ),
)


@given(st.lists(EVENTS, max_size=40))
def test_no_order_of_events_breaks_it_and_what_hung_up_leaves_nothing_behind(events: list[Said]) -> None:
    devices = fed(*events)
    assert devices.state("150") in DeviceState
    devices.set_channels([])
    assert (devices._channels, devices._by_device, devices._conversations) == ({}, {}, {})
