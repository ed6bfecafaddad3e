"""Our lines at a CRM that keeps a list of them: what it calls each, and which rules each has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from admin_http.pages.integrations import base_of, crm_of
from admin_http.pages.routing import Page, Visit
from admin_http.pages.rules import ACTIONS, ANSWERED, DIRECTIONS, KNOWN
from admin_http.pages.wording import lines, owners
from admin_http.texts import N_
from daemon.errors import NotFound, VochidError
from daemon.model.phone import digits_of

STATES = {
    "same": (N_("registered"), "good"), "renamed": (N_("another name there"), "warn"), "missing": (N_("not there"), "warn"), "gone": (N_("only there"), "bad"),
    "unknown": (N_("not known"), "plain"),
}  # fmt: skip


async def show_lines(visit: Visit) -> web.StreamResponse:
    """Asked of the CRM now; a part of the integration's page. When it does not answer, lines and rules show nevertheless."""
    crm = crm_of(visit)
    ask = visit.services.joined.lines
    stored = visit.services.tenants.get(visit.number)
    settings = stored.integrations.get(crm) if stored else None
    if ask is None or crm not in visit.services.joined.with_lines or settings is None:
        raise NotFound("this integration has no lines")
    problem, there = "", None
    try:
        there = await ask(visit.number, crm)
    except VochidError as error:
        problem = visit.say(error)
    rules = [rule.model_dump(mode="json") for rule in settings.rules]
    rows = line_rows(lines(visit), there, rules)
    told = [_told(visit, rule) for rule in rules]
    default_codes = {line.number: line.default_code for line in visit.enterprise.lines}
    return visit.render(
        "integrations/lines.html", base=base_of(visit, crm), rows=rows, told=told, problem=problem, default_codes=default_codes, owners=owners(visit),
        states={code: (visit.text(text), kind) for code, (text, kind) in STATES.items()},
    )  # fmt: skip


def line_rows(ours: Mapping[str, str], there: Mapping[str, str] | None, rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every line of ours, then those that only the CRM knows: number, name, what is odd (`state`), and the places of the rules that may fit. `there`
    None: nobody knows. Pure."""
    rows = []
    for number, name in ours.items():
        state = "unknown" if there is None else "missing" if number not in there else "same" if there[number] == (name or number) else "renamed"
        fitting = [n for n, rule in enumerate(rules) if rule["line"] is None or digits_of(rule["line"]) == digits_of(number)]
        rows.append({"number": number, "name": name, "there": (there or {}).get(number), "state": state, "rules": fitting})
    return rows + [{"number": number, "name": "", "there": name, "state": "gone", "rules": []} for number, name in (there or {}).items() if number not in ours]


def _told(visit: Visit, rule: Mapping[str, Any]) -> str:
    """A rule in a few words: to whom it applies, and what is made."""
    parts = [
        table.get(str(rule[name]).lower())
        for name, table in (("direction", DIRECTIONS), ("answered", ANSWERED), ("known", KNOWN))
        if rule[name] is not None
    ]  # fmt: skip
    when = ", ".join(visit.text(part) for part in parts if part) or visit.text(N_("any call"))
    return f"{when} → {visit.text(ACTIONS[rule['do']])}"


PAGES = (Page("GET", "/e/{n}/integrations/{crm}/lines", show_lines),)
