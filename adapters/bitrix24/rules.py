"""What is made of a call, by the settings' rules, and whose it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from adapters.base import Tenant
from adapters.bitrix24.config import Bitrix24Settings
from daemon.model.call import Call, Direction, Result
from daemon.model.integration import Rule
from daemon.model.phone import digits_of

CAUSE_UNALLOCATED, CAUSES_CONGESTION = 1, (34, 38, 42, 44)

# STATUS_CODE of finish. A missed incoming call is 304 however it was missed, or the portal does not count it as one.
_IN = {Result.ANSWERED: "200", Result.NO_ANSWER: "304", Result.CANCELLED: "304", Result.VOICEMAIL: "304", Result.BUSY: "486", Result.REJECTED: "603"}
_OUT = {Result.ANSWERED: "200", Result.NO_ANSWER: "480", Result.CANCELLED: "603-S", Result.VOICEMAIL: "304", Result.BUSY: "486", Result.REJECTED: "603"}


class Undecided(Enum):
    """Which rule fits depends on what is not known yet."""

    YET = "yet"


def rule_for(rules: Sequence[Rule], call: Call, *, answered: bool | None, known: bool) -> Rule | Undecided | None:
    """The first rule that fits; `answered` None while it rings. Undecided when an earlier one may still turn out to."""
    for rule in rules:
        if rule.line is not None and digits_of(rule.line) != digits_of(call.line or ""):
            continue
        if rule.direction is not None and rule.direction != str(call.direction):
            continue
        if rule.known is not None and rule.known != known:
            continue
        if rule.answered is not None and answered is None:
            return Undecided.YET
        if rule.answered is None or rule.answered == answered:
            return rule
    return None


def settled_rule(rules: Sequence[Rule], call: Call, *, known: bool) -> Rule | None:
    """The rule for a call that has ended."""
    rule = rule_for(rules, call, answered=call.result is Result.ANSWERED, known=known)
    return rule if isinstance(rule, Rule) else None


def makes_entity(settings: Bitrix24Settings, call: Call, *, ended: bool) -> bool:
    """Whether the portal shall make a lead (or what it makes instead) of an unknown number as soon as the call is registered."""
    rule = rule_for(settings.rules, call, answered=(call.result is Result.ANSWERED) if ended else None, known=False)
    return isinstance(rule, Rule) and rule.do == "lead"


def status_code(call: Call) -> str:
    """STATUS_CODE of an ended call."""
    if call.direction is Direction.OUT and call.result is Result.REJECTED and all(leg.number == call.initiator for leg in call.legs):
        return "403"  # the dialplan barred it before anybody was dialled
    code = (_IN if call.direction is Direction.IN else _OUT).get(call.result or Result.INTERRUPTED)
    if code is None and call.result is Result.UNAVAILABLE:
        causes = {leg.cause for leg in call.legs}
        return "404" if CAUSE_UNALLOCATED in causes else "503" if causes.intersection(CAUSES_CONGESTION) else "480"
    return code or "OTHER"


def refusal_code(code: str) -> str:
    """STATUS_CODE of a click that was never dialled, by the refusal's code. Pure."""
    if code == "bad_number":
        return "404"
    if code in ("no_extension", "unknown_extension", "missing_parameter", "nobody"):
        return "480"
    if code == "pbx_link_down":
        return "503"
    return "603-S" if code == "repeated" else "403"


# -- people --------------------------------------------------------------------------------------------------------------------


def users_of(settings: Bitrix24Settings, extensions: Sequence[str]) -> list[int]:
    """Ids of the portal's users who hold these extensions, in their order."""
    by_extension = {extension: user for user, extension in settings.user_extensions.items() if extension}
    return [int(user) for extension in extensions if (user := by_extension.get(extension, "")).isdecimal()]


def person(settings: Bitrix24Settings, candidates: Sequence[str | None], default: str | None) -> Mapping[str, Any]:
    """Names a user to the portal: by id where the extension is somebody's here, else by the extension; the default user when no candidate is
    one of ours. A mobile is nobody's extension."""
    extension = next((each for each in candidates if each and not each.startswith("+")), None)
    if extension is None:
        return {"USER_ID": int(default)} if default else {}
    users = users_of(settings, [extension])
    return {"USER_ID": users[0]} if users else {"USER_PHONE_INNER": extension}


def first_seen_by(call: Call, payload_extensions: Sequence[str] = ()) -> list[str]:
    """Who saw the call first. The portal knows a call again by its user too, so that every registration of it names the same one."""
    return [each for each in (*payload_extensions, *call.rang, call.initiator or "", call.answered_by or "") if each]


def whose(call: Call, tenant: Tenant, responsible: str | None = None) -> list[str | None]:
    """Candidates for whose call it is: by the rule, then who talked last, who answered, who rang first or placed it, the line's default."""
    rest = (call.last_talked, call.answered_by, *call.rang[:1], call.initiator, tenant.default_codes.get(call.line or ""))
    if responsible == "first_answered":
        return [call.answered_by, *rest]
    return [responsible, *rest] if responsible and responsible[:1].isdigit() else list(rest)
