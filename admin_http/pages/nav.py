"""The menu, in one list: what stands where, and who sees it."""

from __future__ import annotations

from dataclasses import dataclass

from admin_http.texts import N_
from daemon.model.person import Role, Session


@dataclass(frozen=True, slots=True)
class Item:
    """An entry. `path` with {n} belongs to an enterprise and shows once one is chosen. `icon`: a name of templates/icons.html."""

    label: str
    path: str
    icon: str
    needs: Role = Role.VIEWER


MENU = (
    Item(N_("Enterprises"), "/enterprises", "building", Role.SUPER),
    Item(N_("Overview"), "/e/{n}", "home"),
    Item(N_("Live"), "/e/{n}/live", "activity"),
    Item(N_("Calls"), "/e/{n}/calls", "phone"),
    Item(N_("Missed calls"), "/e/{n}/missed", "missed"),
    Item(N_("Tickets"), "/e/{n}/tickets", "chat"),
    Item(N_("Records"), "/e/{n}/records", "cards"),
    Item(N_("Deliveries"), "/e/{n}/deliveries", "send"),
    Item(N_("Reports"), "/e/{n}/reports", "chart"),
    Item(N_("Integrations"), "/e/{n}/integrations", "plug"),
    Item(N_("Settings"), "/e/{n}/settings", "sliders"),
    Item(N_("Status"), "/e/{n}/status", "heart"),
    Item(N_("Nodes"), "/nodes", "activity", Role.SUPER),
    Item(N_("People"), "/people", "people", Role.ADMIN),
    Item(N_("Changes"), "/audit", "scroll", Role.ADMIN),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as shown."""

    label: str
    path: str
    icon: str
    current: bool
    of_enterprise: bool


def menu(session: Session | None, number: str, path: str) -> list[Entry]:
    """The entries for this person on this page. The longest path that fits is the current one."""
    if session is None or session.role is Role.CABINET:
        return []
    number = number or session.enterprise or ""
    shown = [(item, item.path.replace("{n}", number)) for item in MENU if session.role.covers(item.needs) and (number or "{n}" not in item.path)]
    fitting = [where for _, where in shown if path == where or path.startswith(where + "/")]
    current = max(fitting, key=len, default="")
    return [Entry(item.label, where, item.icon, where == current, "{n}" in item.path) for item, where in shown]
