"""Calls, logs, and what is live."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from typing import Any

from aiohttp import web
from aiohttp_sse import sse_response

from admin_http.api.routing import Ask, Route, answer, page
from admin_http.api.shapes import CALL, LIST, list_of
from admin_http.services import Services
from daemon.delivery.why import Reason, explain
from daemon.errors import NotFound
from daemon.model.call import Direction, Result, iso
from daemon.records.known import records_json
from daemon.store.call_query import CallFilter

HEARTBEAT_S = 15.0
DIRECTIONS = tuple(map(str, Direction))
RESULTS = tuple(map(str, Result))


def call_filter(ask: Ask) -> CallFilter:
    """The filters of a list of calls, from the query."""
    return CallFilter(
        since=ask.time("from"),
        until=ask.time("to"),
        direction=ask.choice("direction", DIRECTIONS),
        result=ask.choice("result", RESULTS),
        missed=ask.flag("missed"),
        number=ask.query("number"),
        extension=ask.query("extension"),
        line=ask.query("line"),
        queue=ask.query("queue"),
        search=ask.query("q"),
    )


async def list_calls(ask: Ask) -> web.StreamResponse:
    calls, following = await ask.services.calls.page(ask.enterprise, call_filter(ask), cursor=ask.query("cursor"), limit=ask.limit())
    await ask.services.callers.name(ask.enterprise, calls)
    return page(calls, following)


async def get_call(ask: Ask) -> web.StreamResponse:
    call = await ask.services.calls.get(ask.enterprise, ask.part("id"))
    await ask.services.callers.name(ask.enterprise, [call])
    return answer(call)


async def call_deliveries(ask: Ask) -> web.StreamResponse:
    """What every CRM was told of a call and answered, and why something was not sent."""
    call = await ask.services.calls.get(ask.enterprise, ask.part("id"))
    told, reasons = await story(ask.services, ask.enterprise, call)
    return answer({"items": told, "next": None, "reasons": [asdict(reason) for reason in reasons]})


async def story(services: Services, enterprise: str, call: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Reason]]:
    """A call's deliveries with their exchanges, and the reasons for what was and was not sent."""
    told = await services.desk.of_call(enterprise, call["id"])
    tenancy = services.tenants.get(enterprise)
    if tenancy is None:
        return told, []
    return told, explain(call, tenancy.enterprise.paused, tenancy.integrations, services.kinds, told)


async def list_logs(ask: Ask) -> web.StreamResponse:
    limit = ask.limit()
    items = await ask.services.calls.logs(
        ask.enterprise,
        integration=ask.query("integration"),
        status=ask.choice("status", ("success", "error")),
        event_type=ask.query("event_type"),
        before=ask.number("cursor"),
        limit=limit,
    )
    return page(items, items[-1]["id"] if len(items) == limit else None)


async def now(ask: Ask) -> web.StreamResponse:
    """What the live board begins with, and begins anew with after its stream was cut."""
    tenancy = ask.services.tenants.get(ask.enterprise)
    if tenancy is None:
        raise NotFound(f"there is no enterprise {ask.enterprise}")
    states = await ask.services.devices(ask.enterprise, [phone.number for phone in tenancy.enterprise.internal_phones])
    phones = [{"number": phone.number, "owner": phone.owner, "device": str(states[phone.number])} for phone in tenancy.enterprise.internal_phones]
    pbxs = [{"id": name, "state": str(link.state)} for (_, name), link in ask.services.links(ask.enterprise).items()]
    calls = await ask.services.calls.live(ask.enterprise)
    known = await ask.services.callers.name_for_people(ask.enterprise, calls)
    shown = [{**call, "records": records_json(known, call)} for call in calls]
    return answer({"calls": shown, "extensions": phones, "pbxs": pbxs, "at": iso(time.time())})


async def live(ask: Ask) -> web.StreamResponse:
    """Server-sent events until the client leaves."""
    if ask.services.tenants.get(ask.enterprise) is None:
        raise NotFound(f"there is no enterprise {ask.enterprise}")
    async with sse_response(ask.request) as stream:
        with ask.services.live.watch(ask.enterprise) as queue:
            while stream.is_connected():
                try:
                    news = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    continue  # the stream's own ping shows that it lives
                if news is None:
                    break
                data = await ask.services.callers.live(ask.enterprise, news.data) if news.topic == "call" else news.data
                await stream.send(json.dumps(data, ensure_ascii=False), event=news.topic)
    return stream


_ONE = "/api/enterprises/{n}"
CALL_FILTERS = (
    ("from", "started at or after, with offset"),
    ("to", "started before, with offset"),
    ("direction", "in, out or internal"),
    ("result", "the call's result"),
    ("missed", "true or false"),
    ("number", "the customer's number, or its end"),
    ("extension", "who rang, answered, talked or called"),
    ("line", "our external number"),
    ("queue", "the queue's name"),
    ("q", "the end of a number (3 digits or more), or beginnings of words of the customer's name"),
    ("limit", "at most 500"),
    ("cursor", "`next` of the page before"),
)

ROUTES = (
    Route("GET", _ONE + "/calls", list_calls, "Calls, newest first", query=CALL_FILTERS, gives=list_of(CALL)),
    Route("GET", _ONE + "/calls/{id}", get_call, "One call", gives=CALL),
    Route("GET", _ONE + "/calls/{id}/deliveries", call_deliveries, "What every CRM was told of a call and answered; why something was not sent"),
    Route(
        "GET", _ONE + "/logs", list_logs, "What was said to CRMs, newest first",
        query=(("integration", "its name"), ("status", "success or error"), ("event_type", "kind"), ("limit", "at most 500"), ("cursor", "`next`")), gives=LIST,
    ),
    Route("GET", _ONE + "/live/now", now, "Calls that live, extensions, PBXs: what the live board begins with"),
    Route("GET", _ONE + "/live", live, "Server-sent events: call, pbx, integration, delivery, ticket", media="text/event-stream"),
)  # fmt: skip
