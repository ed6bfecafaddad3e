"""amoCRM in a real browser: the way to the consent page and back, and the widget on the account's own page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from lab.crm.amocrm import AmoCrmSandbox
from lab.office import LINES, PHONES
from tests.browser.conftest import Desk
from tests.e2e.test_click import response

pytestmark = pytest.mark.xdist_group("browser")
KNOWN = "+375296254070"


@pytest.fixture
async def box(desk: Desk) -> AsyncIterator[AmoCrmSandbox]:
    sandbox = AmoCrmSandbox()
    await sandbox.start()
    sandbox.page.telephony = desk.base
    sandbox.oauth.integration.redirect_uri = f"{desk.base}/amocrm/callback"
    sandbox.account.contact("Восток", KNOWN, 7031001)
    yield sandbox
    await sandbox.stop()


async def outside(desk: Desk, like: Page | None = None) -> tuple[Page, list[str]]:
    """A page that may go to the CRM's own address; what it complains about comes along."""
    context = await desk.browser.new_context(reduced_motion="reduce", locale="ru-RU")
    if like is not None:
        await context.add_cookies(await like.context.cookies())  # type: ignore[arg-type]
    page, complaints = await context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" and "status of" not in said.text else None)
    return page, complaints


async def test_an_administrator_connects_the_account_and_a_manager_calls_from_its_page(desk: Desk, box: AmoCrmSandbox) -> None:
    made = box.oauth.integration
    amo = {
        "base_url": box.url, "client_id": made.client_id, "client_secret": made.client_secret, "oauth_url": f"{box.url}/oauth",
        "user_extensions": {"7031001": "150"},
    }  # fmt: skip
    pbx = {"name": "main", "host": "127.0.0.1", "port": desk.pbx.port, "username": desk.pbx.username, "secret": desk.pbx.secret}
    phones = [{"number": phone, "owner": ""} for phone in PHONES]
    await desk.daemon.put(
        {
            "number": "0367",
            "name": "Июнь",
            "pbxs": [pbx],
            "lines": [{"number": line} for line in LINES],
            "internal_phones": phones,
            "integrations": {"amocrm": amo},
        }
    )
    await an_administrator_connects(desk, box)
    await asyncio.wait_for(desk.pbx.looked_at.wait(), 60)
    await a_manager_calls(desk, box)


async def an_administrator_connects(desk: Desk, box: AmoCrmSandbox) -> None:
    page, complaints = await outside(desk, await desk.entered())
    await page.goto(f"{desk.base}/e/0367/integrations/amocrm")
    await expect(page.get_by_text("Ещё не подключено.")).to_be_visible()
    await page.get_by_role("link", name="Подключить в amoCRM").click()
    await page.get_by_role("button", name="Deny").click()
    await expect(page.get_by_text("в amoCRM доступ не дали")).to_be_visible()

    await page.goto(f"{desk.base}/e/0367/integrations/amocrm")
    await page.get_by_role("link", name="Подключить в amoCRM").click()
    await page.get_by_role("button", name="Allow").click()
    await page.wait_for_url("**/e/0367/integrations/amocrm?connected=1")
    await expect(page.get_by_text("Подключено.", exact=True)).to_be_visible()
    await expect(page.locator("dl.facts").filter(has_text="Подключено к")).to_contain_text("127.0.0.1")
    await expect(page.get_by_role("row", name="Анна Сидорова")).to_be_visible()
    await desk.accessible(page)
    await desk.shot(page, "amocrm-connected-1280")
    again = await page.context.new_page()
    back = box.oauth.way_back("x" * 43)
    assert (answer := await again.goto(back)) is not None
    assert answer.status == 400
    box.oauth.revoke()
    await page.get_by_role("button", name="Проверить соединение").click()
    await expect(page.get_by_text("Доступ потерян: подключите снова.")).to_be_visible()
    await page.get_by_role("link", name="Подключить в amoCRM").click()
    await page.get_by_role("button", name="Allow").click()
    await expect(page.locator("dl.facts").filter(has_text="Подключено к")).to_contain_text("127.0.0.1")
    assert complaints == []


async def a_manager_calls(desk: Desk, box: AmoCrmSandbox) -> None:
    page, complaints = await outside(desk)
    await page.goto(box.url)
    await expect(page.locator("body")).to_have_attribute("data-ready", "yes")
    await page.get_by_role("button", name=KNOWN).click()
    line = page.get_by_role("status")
    await expect(line).to_have_text("Ваш телефон звонит: снимите трубку")
    (frame,) = desk.pbx.originates
    assert (frame.get("Channel"), frame.get("Exten")) == ("Local/150@inoffice", KNOWN)
    desk.pbx.send(response(frame, True, "4"))
    await expect(line).to_have_text("Звоним клиенту…")
    await page.locator("#user").select_option("7031002")
    await page.get_by_role("button", name=KNOWN).click()
    await expect(line).to_have_text("Не удалось позвонить: No extension configured for user 7031002")
    assert complaints == []
    assert len(desk.pbx.originates) == 1
