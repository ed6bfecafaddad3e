"""The sync block on Bitrix24's card: started, watched, what failed is seen and tried again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import expect

from lab.crm.bitrix24 import Bitrix24Sandbox
from lab.crm.bitrix24_data import Params
from tests.browser.conftest import Desk

pytestmark = pytest.mark.xdist_group("browser")
CARD = "/e/0367/integrations/bitrix24"
CYRILLIC = re.compile("[А-Яа-яё]{3,}")


@pytest.fixture
async def box() -> AsyncIterator[Bitrix24Sandbox]:
    sandbox = Bitrix24Sandbox()
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


@pytest.mark.timeout(300)
async def test_a_sync_is_started_watched_and_what_failed_is_tried_again(desk: Desk, box: Bitrix24Sandbox) -> None:
    page = await desk.entered()
    document = {"number": "0367", "name": "Июнь", "country": "BY", "pbxs": []}
    await desk.daemon.put(document)
    phone = "+375291112233"
    doubles = [await box.methods["crm.contact.add"](Params({"fields": {"NAME": name, "PHONE": [{"VALUE": phone}]}})) for name in ("Ирина", "Инна")]
    async with desk.daemon.client() as api:
        for fields in ({"name": "Ирина Лис", "phone": phone}, {"name": "Пётр Сыч", "phone": "+375291112244"}):
            assert (await api.post("/api/enterprises/0367/crm/users", json=fields)).status_code == 201
        assert (await api.post("/api/enterprises/0367/crm/objects", json={"name": "Трактор"})).status_code == 201
    await desk.daemon.put({**document, "integrations": {"bitrix24": box.settings()}})

    await page.goto(f"{desk.base}{CARD}")
    block = page.locator("#sync")
    await expect(block).to_contain_text("Синхронизировано: 0")
    box.switches.latency_s = 3.0  # a portal that takes its time: the progress is there to be seen
    await block.get_by_role("button", name="Отправить всё на портал").click()
    await expect(block.get_by_role("progressbar")).to_be_visible()
    await expect(block.get_by_role("button", name="Забрать всё с портала")).to_be_disabled()
    box.switches.latency_s = 0.0
    await expect(block.get_by_role("status")).to_contain_text("2 из 3, с ошибкой 1")
    await expect(block.get_by_role("progressbar")).to_have_count(0)

    # What is meant cannot be told: it says so, with what to do, and leads to the record.
    failed = block.locator("tr", has=page.get_by_role("button", name="Ещё раз"))
    await expect(failed).to_have_count(1)
    await expect(failed).to_contain_text(f"на портале с этим телефоном или названием несколько ({doubles[0]}, {doubles[1]})")
    await expect(block.get_by_role("link", name="сделка")).to_have_attribute("href", re.compile(rf"^{box.url}/crm/deal/details/\d+/$"))
    for width, theme, language in ((1280, "light", "ru"), (390, "dark", "en")):
        shown = await desk.page(width=width, theme=theme, language=language, like=page.context)
        await shown.goto(f"{desk.base}{CARD}")
        await expect(shown.locator("#sync table")).to_have_count(2)
        if language == "en":
            assert not CYRILLIC.findall(await shown.locator("#sync").inner_text())
        await desk.accessible(shown)
        await desk.shot(shown, f"sync-{width}-{theme}-{language}")
        await shown.context.close()

    # Somebody joins the two at the portal; then it is tried again, and is done.
    await box.methods["crm.contact.delete"](Params({"id": doubles[1]}))
    await failed.get_by_role("button", name="Ещё раз").click()
    await expect(block).to_contain_text("Синхронизировано: 3")
    await expect(block.get_by_role("button", name="Ещё раз")).to_have_count(0)
    await block.get_by_role("button", name="Забрать всё с портала").click()
    await expect(block.get_by_role("status")).to_contain_text("3 из 3, с ошибкой 0")
    await block.get_by_text("Прежние синхронизации").click()
    await expect(block.locator("details li")).to_contain_text("2 из 3, с ошибкой 1")
    await block.get_by_role("link", name="пользователь").first.click()
    await expect(page.get_by_role("heading", name="В Битрикс24")).to_be_visible()
