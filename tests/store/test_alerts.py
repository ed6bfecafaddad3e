"""The operator's webhook hears once that something began and once that it ended, whatever the number of nodes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from daemon.security.vault import Vault
from daemon.store.pool import Database
from daemon.telemetry.alerts import PbxWatch, shown_secret, signed
from daemon.wiring.alerts import PURPOSE, Alerts
from tests.fakes.stateful import Stateful
from tests.rig import NUMBER, rig


class Receiver:
    """An operator's webhook; `status` is what it answers."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        self.url = ""

    async def hear(self, request: web.Request) -> web.Response:
        self.heard.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status)

    @property
    def said(self) -> list[tuple[str, str]]:
        bodies = [json.loads(body) for _, body in self.heard]
        return [(body["type"], body["data"]["code"]) for body in bodies]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/hook", receiver.hear)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/hook"  # type: ignore[union-attr]
    yield receiver
    await runner.cleanup()


class State:
    """The overview of a node."""

    def __init__(self) -> None:
        self.pbxs: list[dict[str, Any]] = []

    async def state(self, _: str | None) -> dict[str, Any]:
        return {"pbxs": self.pbxs}


async def rounds(*nodes: Alerts, times: int = 1) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(times):
            await asyncio.gather(*(node.look() for node in nodes))
            await asyncio.gather(*(node.tell(session) for node in nodes))


async def test_two_nodes_tell_of_a_refused_connection_once_and_of_its_end_once(db: Database, receiver: Receiver) -> None:
    vault = Vault(["k" * 40])
    async with rig(db, Stateful(), {"url": "http://127.0.0.1:9"}, run=False) as house:
        nodes = [Alerts(db, vault, State(), receiver.url, name) for name in ("one", "two")]  # type: ignore[arg-type]
        await rounds(*nodes)
        assert receiver.said == []
        await house.outbox.set_connection(NUMBER, Stateful.name, "needs_reauth", "403 from the CRM")
        await rounds(*nodes, times=3)
        assert receiver.said == [("alarm.began", "needs_reauth")]
        await house.outbox.set_connection(NUMBER, Stateful.name, "ok", "")
        await rounds(*nodes, times=3)
        assert receiver.said == [("alarm.began", "needs_reauth"), ("alarm.ended", "needs_reauth")]
        headers, body = receiver.heard[0]
        key = base64.b64decode(shown_secret(vault.derived_keys(PURPOSE)[0]).removeprefix("whsec_"))
        expected = signed([key], headers["webhook-id"], int(headers["webhook-timestamp"]), body)
        assert headers["webhook-signature"] == expected["webhook-signature"]
        assert json.loads(body)["data"]["text"] == f"{Stateful.name} refuses the credentials of enterprise {NUMBER}: 403 from the CRM"


async def test_a_webhook_that_refuses_is_told_again_in_order(db: Database, receiver: Receiver) -> None:
    async with rig(db, Stateful(), {"url": "http://127.0.0.1:9"}, run=False) as house:
        node = Alerts(db, Vault(["k" * 40]), State(), receiver.url, "one")  # type: ignore[arg-type]
        receiver.status = 503
        await house.outbox.set_connection(NUMBER, Stateful.name, "disabled", "switched off")
        await rounds(node)
        assert receiver.said == [("alarm.began", "connection_off")]
        receiver.heard.clear()
        await rounds(node)
        assert receiver.said == [], "not due again yet"
        receiver.status = 200
        await house.outbox.set_connection(NUMBER, Stateful.name, "ok", "")
        await rounds(node, times=2)
        assert receiver.said == [("alarm.began", "connection_off"), ("alarm.ended", "connection_off")], "its end made it due again, in order"


async def test_old_deliveries_and_a_lost_pbx_are_told_too(db: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(db, Stateful(), {"url": "http://127.0.0.1:9"}, run=False):
        state = State()
        node = Alerts(db, Vault(["k" * 40]), state, receiver.url, "one")  # type: ignore[arg-type]
        monkeypatch.setattr("daemon.telemetry.alerts.GRACE_S", 0.0)
        state.pbxs = [{"enterprise": NUMBER, "pbx": "main", "reads": True, "state": None, "reason": "", "owner": None, "is_here": False}]
        await rounds(node)
        assert receiver.said == [("alarm.began", "pbx_unread")]
        state.pbxs = [{**state.pbxs[0], "state": "ready", "owner": "one", "is_here": True}]
        await rounds(node)
        assert receiver.said[1:] == [("alarm.ended", "pbx_unread")]
        async with db.tenant(NUMBER) as connection:
            await connection.execute(
                "insert into deliveries (enterprise_number, integration, record, kind, key, priority, payload, created_at, due_at) "
                "values ($1, $2, 'order/1', 'message', 'k', 2, '{}', now() - interval '10 minutes', now() + interval '1 hour')", NUMBER, Stateful.name,
            )  # fmt: skip
        await rounds(node)
        assert receiver.said[2:] == [("alarm.began", "old_deliveries")]
        assert PbxWatch().look([], 0.0) == {}
