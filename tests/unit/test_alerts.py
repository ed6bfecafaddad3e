"""Which alarms the operator hears of, and their signature."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from daemon.telemetry.alerts import GRACE_S, SEVERITIES, TEXTS, PbxWatch, over, signed, webhook_body


def pbx(state: str | None = "ready", owner: str | None = "node", *, reads: bool = True, name: str = "main", is_here: bool = True) -> dict[str, Any]:
    return {"enterprise": "0001", "pbx": name, "reads": reads, "state": state, "reason": "refused", "owner": owner, "is_here": is_here}


DOWN, UNREAD = ("0001", "pbx_down", "main"), ("0001", "pbx_unread", "main")


def test_a_pbx_is_alarming_after_a_minute_without_a_link_and_not_before() -> None:
    watch = PbxWatch()
    assert watch.look([pbx("connecting")], 100.0) == {}
    assert watch.look([pbx("waiting")], 100.0 + GRACE_S - 1) == {}
    assert watch.look([pbx("waiting")], 100.0 + GRACE_S) == {DOWN: "refused"}


def test_a_link_that_came_back_in_between_begins_a_new_minute() -> None:
    watch = PbxWatch()
    watch.look([pbx("waiting")], 0.0)
    assert watch.look([pbx()], 30.0) == {}
    assert watch.look([pbx("waiting")], 61.0) == {}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (pbx(None, None), {UNREAD: ""}), (pbx("waiting", "another node", is_here=False), {}), (pbx("waiting", reads=False), {}), (pbx(), {}),
    ],
)  # fmt: skip
def test_each_node_judges_its_own_links_and_any_node_sees_what_nobody_reads(row: dict[str, Any], expected: dict[Any, str]) -> None:
    watch = PbxWatch()
    watch.look([row], 0.0)
    assert watch.look([row], GRACE_S) == expected


@pytest.mark.parametrize(
    ("row", "ended"),
    [
        ([pbx()], [DOWN, UNREAD]), ([pbx("waiting")], [UNREAD]),
        ([pbx("ready", "another node", is_here=False)], [UNREAD]), ([pbx(None, None)], []), ([], [DOWN, UNREAD]),
        ([pbx("waiting", reads=False)], [DOWN, UNREAD]),
    ],
)  # fmt: skip
def test_an_alarm_ends_when_its_cause_is_seen_to_be_over(row: list[dict[str, Any]], ended: list[Any]) -> None:
    assert over([DOWN, UNREAD], {}, row) == ended


def test_a_connections_alarm_ends_when_its_row_says_so() -> None:
    key = ("0001", "needs_reauth", "retailcrm")
    assert over([key], {key: "403"}, []) == []
    assert over([key], {}, []) == [key]


def test_the_signature_is_the_one_of_standard_webhooks() -> None:
    """The worked example that implementations of Standard Webhooks share."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signed([b"new", key], "i", 1, b"x")["webhook-signature"].count("v1,") == 2


@pytest.mark.parametrize("code", TEXTS)
def test_every_alarm_has_a_sentence_that_begins_and_ends(code: str) -> None:
    at = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
    row = {"enterprise_number": "0001", "code": code, "subject": "main", "severity": SEVERITIES[code], "detail": "why {x}", "began_at": at, "ended_at": at}
    began, ended = (json.loads(webhook_body({**row, "told": told}, "node")) for told in ("nothing", "began"))
    assert (began["type"], ended["type"]) == ("alarm.began", "alarm.ended")
    assert "main" in began["data"]["text"]
    assert ended["data"]["text"] == f"over: {began['data']['text']}"
    assert (began["data"]["ended_at"], ended["data"]["ended_at"]) == (None, "2026-11-21T08:00:00+00:00")
