"""Rules of an integration: what is made of a call there, by line, direction and outcome; the first that fits wins. Offered is what this CRM can make
and looks at.

The form works without a script: a button that adds, moves or takes away a rule sends the form, and gets it back changed and not stored yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from aiohttp import web

from admin_http.audited import put_integration_settings
from admin_http.pages.integrations import TITLES
from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import lines, owners
from admin_http.texts import N_
from daemon.errors import NotFound, VochidError
from daemon.model.integration import Rule

MAX_RULES = 200
ACTIONS = {
    "lead": N_("make a lead"), "contact": N_("make a contact"), "unsorted": N_("put it among the unsorted"), "task": N_("make a task"),
    "ticket": N_("make a ticket"), "nothing": N_("do nothing"),
}  # fmt: skip
DIRECTIONS = {"in": N_("incoming"), "out": N_("outgoing")}
ANSWERED = {"true": N_("answered"), "false": N_("not answered")}
KNOWN = {"true": N_("known"), "false": N_("new")}
RESPONSIBLE = {"last_talked": N_("who talked last"), "first_answered": N_("who answered first"), "entity": N_("who looks after the customer")}
_EMPTY = {"line": None, "direction": None, "answered": None, "known": None, "do": "nothing", "responsible": "last_talked", "task_deadline_s": None}
_FIELD = re.compile(r"rules\.(\d{1,4})\.(line|direction|answered|known|do|responsible|deadline)")
_ACTION = re.compile(r"(up|down|remove)\.(\d{1,4})|add|save")
assert set(ACTIONS) == set(get_args(Rule.model_fields["do"].annotation))


async def show_rules(visit: Visit) -> web.StreamResponse:
    crm, stored = await _stored(visit)
    return _page(visit, crm, stored.get("rules", []))


def _page(visit: Visit, crm: str, rules: Sequence[Mapping[str, Any]], *, errors: Mapping[str, str] | None = None, changed: bool = False) -> web.Response:
    def told(table: Mapping[str, str]) -> dict[str, str]:
        return {code: visit.text(text) for code, text in table.items()}

    kind = visit.services.joined.kinds[crm]
    people = told(RESPONSIBLE) | {number: f"{number} · {owner}" if owner else number for number, owner in owners(visit).items()}
    return visit.render(
        "integrations/rules.html", status=400 if errors else 200, crm=crm, title=TITLES.get(crm, crm), rules=rules, errors=errors or {}, changed=changed,
        actions=told({code: ACTIONS[code] for code in kind.makes}), by=kind.rules_by,
        directions=told(DIRECTIONS), answers=told(ANSWERED), knowns=told(KNOWN), people=people,
        lines={number: f"{name} {number}" if name else number for number, name in lines(visit).items()}, is_full=len(rules) >= MAX_RULES,
    )  # fmt: skip


async def change_rules(visit: Visit) -> web.StreamResponse:
    """One step of editing, or the end of it. An error stands at its rule."""
    crm, stored = await _stored(visit)
    form = await visit.form()
    rules, action = read_rules(form), _ACTION.fullmatch(form.get("action", "save"))
    if action is None:
        raise VochidError("choose what to do with the rules", code="bad_parameter")
    if action[0] != "save":
        return _page(visit, crm, edited(rules, action[1] or "add", int(action[2] or 0)), changed=True)
    try:
        await put_integration_settings(visit.services, visit.actor, visit.number, crm, {**stored, "rules": rules})
    except VochidError as error:
        return _page(visit, crm, rules, errors={(error.field or "").removeprefix(f"integrations.{crm}."): visit.say(error)}, changed=True)
    return visit.redirect(f"/e/{visit.number}/integrations/{crm}/rules")


def edited(rules: list[dict[str, Any]], action: str, place: int) -> list[dict[str, Any]]:
    """The rules after one step: `add` at the end, `up`, `down` or `remove` at a place; what cannot be done changes nothing. Pure."""
    if action == "add":
        return [*rules, dict(_EMPTY)][:MAX_RULES]
    if not place < len(rules):
        return rules
    if action == "remove":
        return rules[:place] + rules[place + 1 :]
    other = place - 1 if action == "up" else place + 1
    if 0 <= other < len(rules):
        rules[place], rules[other] = rules[other], rules[place]
    return rules


def read_rules(form: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rules from a form's fields rules.N.name, in order of N. What is no number stays text: validation says so. Pure."""
    found: dict[int, dict[str, Any]] = {}
    for name, value in form.items():
        if place := _FIELD.fullmatch(name):
            found.setdefault(int(place[1]), dict(_EMPTY))[place[2]] = value.strip() or None
    return [_rule(found[place]) for place in sorted(found)][: MAX_RULES + 1]


def _rule(sent: dict[str, Any]) -> dict[str, Any]:
    minutes = sent.pop("deadline", None)
    for name in ("answered", "known"):
        sent[name] = {"true": True, "false": False}.get(sent[name] or "")
    sent["responsible"] = sent["responsible"] or "last_talked"
    sent["task_deadline_s"] = int(minutes) * 60 if minutes and minutes.isascii() and minutes.isdigit() and len(minutes) < 8 else minutes
    return sent


async def _stored(visit: Visit) -> tuple[str, dict[str, Any]]:
    crm = visit.part("crm")
    document, _ = await visit.services.tenants.document(visit.number)
    stored = document["integrations"].get(crm)
    if stored is None or crm not in visit.services.joined.kinds:
        raise NotFound(f"there is no integration {crm}")
    if not visit.services.joined.kinds[crm].makes:
        raise NotFound(f"{crm} follows no rules")
    return crm, dict(stored)


_RULES = "/e/{n}/integrations/{crm}/rules"

PAGES = (
    Page("GET", _RULES, show_rules),
    Page("POST", _RULES, change_rules),
)
