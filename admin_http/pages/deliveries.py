"""What goes to CRMs: the queue, failures by cause, health of the connections; retry and discard."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from aiohttp import web

from admin_http.api.deliveries import MAX_IDS, change_many
from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import KINDS, STATES, words
from daemon.delivery.letters import DeliveryFilter
from daemon.errors import VochidError

PER_PAGE = 50
SHOWN = ("dead", "waiting", "delivered", "dropped", "observed", "discarded")


async def show_deliveries(visit: Visit) -> web.Response:
    shown = {name: (visit.query(name) or "").replace("\0", "")[:500] for name in ("state", "integration", "kind", "cause")}
    asked = DeliveryFilter(
        state=shown["state"] if shown["state"] in STATES else None, integration=shown["integration"] or None,
        kind=shown["kind"] if shown["kind"] in KINDS else None, cause=shown["cause"] or None,
    )  # fmt: skip
    cursor = visit.query("cursor")
    before = int(cursor) if cursor and cursor.isascii() and cursor.isdigit() and len(cursor) < 19 else None
    rows = await visit.services.outbox.page(visit.number, asked, before=before, limit=PER_PAGE)
    more = str(rows[-1]["id"]) if len(rows) == PER_PAGE else None
    is_part = visit.is_fragment and before is not None
    return visit.render(
        "deliveries/list.html", rows=rows, shown=shown, is_first=before is None, states_shown=SHOWN, address=_address(shown),
        more=_address({**shown, "cursor": more}) if more else None, summary=[] if is_part else await visit.services.desk.summary(visit.number),
        causes=[] if is_part else await visit.services.desk.causes(visit.number), connections=[] if is_part else await visit.services.connections(visit.number),
        **words(visit),
    )  # fmt: skip


def _address(shown: Mapping[str, str | None]) -> str:
    kept = {name: value for name, value in shown.items() if value}
    return "?" + urlencode(kept) if kept else ""


async def change(visit: Visit) -> web.StreamResponse:
    """Retries or discards the ticked ones, or all of one cause; says how many."""
    form = await visit.form_lists()
    action = (form.get("action") or [""])[0]
    if action not in ("retry", "discard"):
        raise VochidError("choose retry or discard", code="bad_parameter")
    ids = [int(text) for text in form.get("id", []) if text.isascii() and text.isdigit() and len(text) < 19][:MAX_IDS]
    one = {name: values[0] for name in ("integration", "kind", "cause", "state") if (values := form.get(name)) and values[0]}
    if not ids and "cause" not in one:
        raise VochidError("tick at least one delivery", code="bad_parameter")
    asked = DeliveryFilter(ids=ids) if ids else DeliveryFilter(one.get("state"), one.get("integration"), one.get("kind"), cause=one["cause"])
    done = await change_many(visit.services, visit.number, asked, retry=action == "retry")
    text = visit.text("%(count)s are due now", count=done["changed"]) if action == "retry" else visit.text("%(count)s discarded", count=done["changed"])
    if done["left"]:
        text += visit.text(", %(count)s are left", count=done["left"])
    return visit.toast(await show_deliveries(visit), text)


PAGES = (
    Page("GET", "/e/{n}/deliveries", show_deliveries),
    Page("POST", "/e/{n}/deliveries", change),
)
