"""The sync block on Bitrix24's card: start it, see how far it is, what failed and why, and try that again; former syncs, and what was synced last.
A part of the page, asked anew while a sync runs."""

from __future__ import annotations

from aiohttp import web

from admin_http.pages.routing import Page, Visit
from admin_http.ports import SyncPort
from daemon.errors import NotFound, VochidError
from daemon.model.crm_record import RecordType
from daemon.model.person import Role

SHOWN_ERRORS, SHOWN_JOBS, SHOWN_PAIRS = 20, 5, 10
DIRECTIONS = ("to", "from")


def _port(visit: Visit) -> SyncPort:
    port = visit.services.joined.bitrix24_sync
    if port is None:
        raise NotFound("bitrix24 has no sync here")
    return port


async def show_sync(visit: Visit) -> web.StreamResponse:
    return await _block(visit)


async def start_sync(visit: Visit) -> web.StreamResponse:
    """Everything, one way; finer filters are the API's."""
    direction = (await visit.form()).get("direction", "")
    if direction not in DIRECTIONS:
        raise NotFound("a sync goes to the portal or from it")
    problem = ""
    try:
        await _port(visit).start(visit.number, direction, {})
        await visit.services.people.audit.note(visit.actor, "sync started", "bitrix24", enterprise=visit.number, details={"direction": direction})
    except VochidError as error:
        problem = visit.say(error)
    return await _block(visit, problem)


async def retry_failed(visit: Visit) -> web.StreamResponse:
    text = visit.part("id")
    problem = ""
    try:
        await _port(visit).retry(visit.number, int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1)
    except NotFound as error:  # it was done meanwhile
        problem = visit.say(error)
    return await _block(visit, problem)


async def _block(visit: Visit, problem: str = "") -> web.Response:
    port = _port(visit)
    jobs = [one.shown() for one in await port.jobs.recent(visit.number, SHOWN_JOBS)]
    errors, total = await port.errors.page(visit.number, page=1, limit=SHOWN_ERRORS)
    pairs, _ = await port.mappings.page(visit.number, page=1, limit=SHOWN_PAIRS)
    tenancy = visit.services.tenants.get(visit.number)
    portal = getattr(tenancy.integrations.get("bitrix24"), "portal", "") if tenancy is not None else ""
    return visit.render(
        "integrations/sync.html", base=f"/e/{visit.number}/integrations/bitrix24", jobs=jobs, errors=errors, errors_total=total, pairs=pairs, portal=portal,
        records_root=f"/e/{visit.number}/records", plurals={str(one): one.plural for one in RecordType},
        counts=(await port.stats(visit.number))["mappings"], records=await port.waiting(visit.number), problem=problem,
    )  # fmt: skip


_ROOT = "/e/{n}/integrations/bitrix24/sync"

PAGES = (
    Page("GET", _ROOT, show_sync),
    Page("POST", _ROOT, start_sync, needs=Role.ADMIN),
    Page("POST", _ROOT + "/errors/{id}/retry", retry_failed, needs=Role.ADMIN),
)
