"""The ticket desk for people: the list, a conversation, replies and statuses."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from adapters.tickets.inbound import check_text
from adapters.tickets.limits import MAX_ATTACHMENTS, MAX_MESSAGE, MAX_NAME, MAX_SUBJECT, most_bytes
from admin_http.api.support import reading
from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import may_call, owners, words
from admin_http.texts import N_
from daemon.errors import NotFound, VochidError
from daemon.model.phone import shown_number
from daemon.model.ticket import Attachment, TicketStatus
from daemon.store.ticket_query import TicketFilter

PER_PAGE = 50
LINK_S = 900.0  # how long links of the conversation live
TABS = {"unclosed": N_("Not closed"), "open": N_("New"), "in_progress": N_("Being worked on"), "closed": N_("Closed"), "": N_("All")}
STATUSES = {"open": (N_("unanswered"), "info"), "in_progress": (N_("in progress"), "warn"), "closed": (N_("closed"), "plain")}
COPIES = {
    "waiting": N_("is being fetched"), "failed": N_("could not be fetched"), "expired": N_("is kept no longer"),
}  # fmt: skip
SIDES = {"tma": N_("Customer"), "crm": N_("Support")}


async def show_tickets(visit: Visit) -> web.StreamResponse:
    chosen = visit.query("status")
    status = chosen if chosen in TABS else "unclosed" if chosen is None and "status" not in visit.request.query else ""
    text = (visit.query("q") or "").strip().replace("\0", "")[:100]
    asked = TicketFilter(status=status or None, search=text or None)
    items, following = await visit.services.support.tickets.page(visit.number, asked, cursor=visit.query("cursor"), limit=PER_PAGE)
    more = "?" + urlencode({"status": status, "q": text, "cursor": following}) if following else None
    legacy = await visit.services.support.tickets.legacy_callers(visit.number)
    return visit.render(
        "tickets/list.html", legacy=legacy, items=items, more=more,
        is_first=visit.query("cursor") is None, chosen=status, text=text, tabs=TABS, has_desk=_has_desk(visit),
        owners=owners(visit), statuses=_statuses(visit), **words(visit),
    )  # fmt: skip


async def open_ticket(visit: Visit) -> web.StreamResponse:
    form = await visit.form()
    phone = form.get("phone", "").strip()
    number = shown_number(phone, visit.enterprise.country) if phone else None
    if phone and number is None:
        raise VochidError("phone is a phone number", code="bad_parameter", field="phone")
    ticket, _ = await visit.services.support.open(
        visit.number, _text(form, "subject", MAX_SUBJECT), _text(form, "message", MAX_MESSAGE), phone=number, author=visit.who.name
    )
    return visit.redirect(f"/e/{visit.number}/tickets/{ticket['id']}")


async def show_ticket(visit: Visit) -> web.StreamResponse:
    ticket = await visit.services.support.tickets.get(visit.number, visit.id())
    role = str(visit.services.support.role(visit.number)) if _has_desk(visit) else ""
    for message in ticket["messages"]:
        message["files"] = [_file(visit, item) for item in message["attachments"]]
        message["is_ours"] = message["sender"] == role
    return visit.render(
        "tickets/ticket.html", ticket=ticket, statuses=_statuses(visit), copies={code: visit.text(text) for code, text in COPIES.items()},
        sides={code: visit.text(text) for code, text in SIDES.items()}, has_desk=_has_desk(visit), owners=owners(visit),
        may_call=may_call(visit), **words(visit),
    )  # fmt: skip


async def reply(visit: Visit) -> web.StreamResponse:
    form, files = await visit.form(), await _files(visit)
    text = _text(form, "message", MAX_MESSAGE, may_be_empty=bool(files))
    await visit.services.support.reply(visit.number, visit.id(), text, attachments=files, author=visit.who.name)
    return visit.redirect(f"/e/{visit.number}/tickets/{visit.id()}")


async def set_status(visit: Visit) -> web.StreamResponse:
    form = await visit.form()
    agent = form.get("agent")
    if form.get("status") not in STATUSES or (agent and agent not in owners(visit)):
        raise VochidError("choose a status and an extension of the list", code="bad_parameter")
    await visit.services.support.set_status(visit.number, visit.id(), TicketStatus(form["status"]), agent)
    return visit.redirect(f"/e/{visit.number}/tickets/{visit.id()}")


def _has_desk(visit: Visit) -> bool:
    tenancy = visit.services.tenants.get(visit.number)
    return tenancy is not None and "tickets" in tenancy.integrations


async def _files(visit: Visit) -> list[Attachment]:
    """The files of a form; a body is as long as any other one may be."""
    found = []
    for sent in (await visit.request.post()).getall("files", []):
        if isinstance(sent, web.FileField):
            data, mime = sent.file.read(), sent.content_type.partition(";")[0].strip().lower()
            name = "".join(character for character in sent.filename if character.isprintable())[:MAX_NAME] or "file"
            most = most_bytes(mime)
            if most is None or len(data) > most or not data:
                raise VochidError("this file cannot be taken: its type or its size", code="attachment_refused", field="files")
            found.append(Attachment(name, "", mime, len(data), data))
    if len(found) > MAX_ATTACHMENTS:
        raise VochidError("these are too many files for one message", code="too_long", field="files")
    return found


def _text(form: dict[str, str], name: str, most: int, *, may_be_empty: bool = False) -> str:
    return reading(lambda value: check_text(value, name, most, may_be_empty=may_be_empty), form.get(name, "").replace("\r\n", "\n").strip())


def _statuses(visit: Visit) -> dict[str, tuple[str, str]]:
    return {code: (visit.text(text), kind) for code, (text, kind) in STATUSES.items()}


def _file(visit: Visit, item: dict[str, Any]) -> dict[str, Any]:
    """An attachment as the page shows it: `link` to our copy or the recording, None while there is none."""
    link = None
    if "call" in item:
        try:
            link = visit.services.recordings.links.link(visit.number, item["call"], item["index"], LINK_S, name=item["name"])
        except NotFound:
            link = None
        return {**item, "mime": "audio/", "size": None, "state": "stored", "link": link}
    if item.get("state") == "stored":
        link = visit.services.attachments.link(visit.number, item["copy"], item["name"], LINK_S)
    return {**item, "link": link}


PAGES = (
    Page("GET", "/e/{n}/tickets", show_tickets),
    Page("POST", "/e/{n}/tickets", open_ticket),
    Page("GET", "/e/{n}/tickets/{id}", show_ticket),
    Page("POST", "/e/{n}/tickets/{id}/reply", reply),
    Page("POST", "/e/{n}/tickets/{id}/status", set_status),
)
