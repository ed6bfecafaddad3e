"""What an operator must look at, from the state of everything. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OLD_DELIVERY_S = 300.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """`code`: pbx_down, pbx_unread, needs_reauth, connection_off, breaker, old_deliveries, dead_letters, settings. `subject`: whose."""

    severity: str
    code: str
    subject: str
    detail: str = ""
    since: Any = None


def alarms(
    pbxs: Sequence[Mapping[str, Any]], connections: Sequence[Mapping[str, Any]], backlog: Sequence[Mapping[str, Any]], problems: Sequence[str]
) -> list[Alarm]:
    """The worst first. `pbxs`: pbx, reads, state, reason, since, owner; `connections`: integration, state, reason, since, breaker;
    `backlog`: as the desk's summary gives it."""
    found: list[Alarm] = []
    for pbx in pbxs:
        if pbx["state"] is None and pbx["owner"] is None and pbx["reads"]:
            found.append(Alarm("error", "pbx_unread", pbx["pbx"]))
        elif pbx["state"] not in (None, "ready"):
            found.append(Alarm("error", "pbx_down", pbx["pbx"], pbx["reason"] or pbx["state"], pbx["since"]))
    for connection in connections:
        if connection["state"] == "needs_reauth":
            found.append(Alarm("error", "needs_reauth", connection["integration"], connection["reason"], connection["since"]))
        elif connection["state"] != "ok":
            found.append(Alarm("warning", "connection_off", connection["integration"], connection["reason"], connection["since"]))
        if connection["breaker"] != "closed":
            found.append(Alarm("error", "breaker", connection["integration"], connection["breaker"]))
    for queue in backlog:
        if (queue["oldest_s"] or 0) > OLD_DELIVERY_S:
            found.append(Alarm("warning", "old_deliveries", queue["integration"], str(round(queue["oldest_s"]))))
        if queue["dead"]:
            found.append(Alarm("warning", "dead_letters", queue["integration"], str(queue["dead"])))
    found += [Alarm("error", "settings", "", problem) for problem in problems]
    return sorted(found, key=lambda alarm: alarm.severity)
