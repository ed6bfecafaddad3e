"""Why a CRM was or was not told of a call. Pure: the call, the settings as they are now and the deliveries in, reasons out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.model.delivery import Kind
from daemon.model.integration import IntegrationSettings

_ORDER = list(Kind)  # as a call goes
_SEND = {Kind.HANGUP: "hangup", Kind.JOURNAL: "journal", Kind.RECORDING: "recordings", Kind.TASK: "journal"}
# Not every call has one: explained only where there is one.
_SELDOM = (Kind.CALLED_BACK, Kind.TICKET, Kind.MESSAGE, Kind.STATUS, Kind.ORDER)


@dataclass(frozen=True, slots=True)
class Reason:
    """One answer for one kind of thing a CRM may be told. `code` is stable; `detail`: the CRM's or our words, where there are any.

    Codes: as the deliveries' states, and paused, disabled, internal, consult, live, switched_off, no_number, nobody_rang,
    no_recording, with_journal, rule, not_planned. `settings_now`: judged by the settings of this moment, which may have changed since the call.
    """

    integration: str
    kind: str
    code: str
    detail: str = ""
    settings_now: bool = False


def explain(
    call: Mapping[str, Any], paused: bool, settings: Mapping[str, IntegrationSettings], kinds: Mapping[str, frozenset[Kind]], told: Sequence[Mapping[str, Any]]
) -> list[Reason]:
    """A reason for every integration and kind it knows; `kinds` by integration, `told` the call's deliveries as the outbox shows them."""
    reasons: list[Reason] = []
    for name, chosen in settings.items():
        for kind in sorted(kinds.get(name, frozenset()), key=_ORDER.index):
            sent = [delivery for delivery in told if delivery["integration"] == name and delivery["kind"] == kind]
            if sent:
                reasons += [Reason(name, str(kind), d["state"], d["last_error"] or "") for d in sent]
            elif kind not in _SELDOM:
                code, detail, is_of_now = _unsent(call, paused, chosen, kind)
                if code == "not_planned" and kind is Kind.RECORDING and any(d["integration"] == name and d["kind"] == Kind.JOURNAL for d in told):
                    code = "with_journal"  # it was there in time: the entry carries its link
                reasons.append(Reason(name, str(kind), code, detail, is_of_now))
    reasons += [Reason(d["integration"], d["kind"], d["state"], d["last_error"] or "") for d in told if d["integration"] not in settings]
    return reasons


def _unsent(call: Mapping[str, Any], paused: bool, chosen: IntegrationSettings, kind: Kind) -> tuple[str, str, bool]:
    """Code, detail, and whether the present settings were judged."""
    if call["direction"] == "internal":
        return "consult" if call["consult"] else "internal", "", False
    if kind in (Kind.JOURNAL, Kind.RECORDING, Kind.TASK) and call["ended_at"] is None:
        return "live", "", False
    if kind in (Kind.POPUP, Kind.HANGUP):
        if call["customer_number"] is None:
            return "no_number", "", False
        if not (call["rang"] or call["initiator"]):
            return "nobody_rang", "", False
    if kind is Kind.RECORDING and not call["recordings"]:
        return "no_recording", "", False
    if paused:
        return "paused", "", True
    if not chosen.enabled:
        return "disabled", "", True
    switch = _SEND.get(kind) or ("popup_in" if call["direction"] == "in" else "popup_out")
    if not getattr(chosen.send, switch):
        return "switched_off", f"send.{switch}", True
    for number, rule in enumerate(chosen.rules, 1):
        if _fits(rule, call):
            return ("rule", str(number), True) if rule.do == "nothing" else ("not_planned", "", False)
    return "not_planned", "", False


def _fits(rule: Any, call: Mapping[str, Any]) -> bool:
    """Whether a rule speaks of this call; whether the customer was known to the CRM is not stored, so that such a rule is passed by."""
    answered = call["result"] == "answered"
    pairs = ((rule.line, call["line"]), (rule.direction, call["direction"]), (rule.answered, answered))
    return rule.known is None and all(wanted is None or wanted == found for wanted, found in pairs)
