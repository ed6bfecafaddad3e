"""The sandbox's page: what a person sees and presses, and what the account then asks of the PBX."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lab.crm.retailcrm import RetailCrmSandbox


class Pbx:
    """The other side of makeCallUrl and changeUserStatusUrl."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""

    async def start(self) -> web.AppRunner:
        application = web.Application()
        application.router.add_route("*", "/{what}", self._take)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        return runner

    async def _take(self, request: web.Request) -> web.Response:
        sent = request.query if request.method == "GET" else await request.post()
        self.asked.append((request.method, request.path, {name: str(value) for name, value in sent.items()}))
        return web.json_response({"success": True})


@pytest.fixture
async def pbx() -> AsyncIterator[Pbx]:
    other = Pbx()
    runner = await other.start()
    yield other
    await runner.cleanup()


@pytest.fixture
async def box(pbx: Pbx) -> AsyncIterator[RetailCrmSandbox]:
    sandbox = RetailCrmSandbox()
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


def register(box: RetailCrmSandbox, pbx: Pbx, **more: Any) -> None:
    telephony = {
        "makeCallUrl": f"{pbx.url}/call", "changeUserStatusUrl": f"{pbx.url}/status", "additionalCodes": [{"userId": 19, "code": "150"}],
        "externalPhones": [{"siteCode": "main-shop", "externalPhone": "375171112233"}],
    }  # fmt: skip
    box.account.modules["pbx"] = {"code": "pbx", "active": True, "clientId": "the-client-id", "integrations": {"telephony": telephony}, **more}


async def press(box: RetailCrmSandbox, path: str, **fields: str) -> dict[str, Any]:
    async with aiohttp.ClientSession(box.url) as session, session.post(f"/-/{path}", data=fields) as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def test_a_click_reaches_the_pbx_as_the_account_sends_it(box: RetailCrmSandbox, pbx: Pbx) -> None:
    register(box, pbx)
    done = await press(box, "call", user="19", phone="+375296254070")
    assert done["status"] == 200
    await press(box, "switch", name="callback_method")
    await press(box, "call", user="22", phone="+375296254070")
    common = {"clientId": "the-client-id", "phone": "+375296254070", "externalPhone": "375171112233"}
    assert pbx.asked == [("GET", "/call", {**common, "userId": "19", "code": "150"}), ("POST", "/call", {**common, "userId": "22"})]


async def test_a_status_is_kept_and_told(box: RetailCrmSandbox, pbx: Pbx) -> None:
    register(box, pbx)
    await press(box, "status", user="19", status="dinner")
    assert box.account.users[19].status == "dinner"
    assert pbx.asked == [("GET", "/status", {"clientId": "the-client-id", "userId": "19", "code": "150", "status": "dinner"})]
    assert (await press(box, "status", user="19", status="dnd"))["status"] == 400
    assert (await press(box, "switch", name="nope"))["status"] == 400


async def test_without_a_module_or_without_its_server_the_page_says_so(box: RetailCrmSandbox, pbx: Pbx) -> None:
    assert "no active telephony module" in (await press(box, "call", user="19", phone="1"))["answer"]
    register(box, pbx, active=False)
    assert "no active telephony module" in (await press(box, "call", user="19", phone="1"))["answer"]
    register(box, Pbx())
    box.account.modules["pbx"]["integrations"]["telephony"]["makeCallUrl"] = "http://127.0.0.1:9/call"
    assert (await press(box, "call", user="19", phone="1"))["status"] == 0


async def test_the_page_shows_everything_and_the_clientid_only_to_its_own_button(box: RetailCrmSandbox, pbx: Pbx) -> None:
    register(box, pbx)
    await press(box, "call", user="19", phone="+375296254070")
    async with aiohttp.ClientSession(box.url) as session:
        page = await (await session.get("/")).text()
        state = await (await session.get("/-/state")).json()
    assert "<title>RetailCRM sandbox</title>" in page
    assert set(state) == {"users", "customers", "modules", "popups", "journal", "callbacks", "refusals", "counts", "statuses", "switches"}
    assert state["users"][0] == {"id": 19, "name": "Анна Сидорова", "active": True, "status": "free", "code": "150"}
    assert "the-client-id" not in str(state["callbacks"])
