"""Own records as people have them: made, found, tied to each other, changed and taken away; a caller is shown with the record."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from daemon.store.embedded import EmbeddedPostgres
from daemon.store.pool import Database
from tests.browser.conftest import Desk

pytestmark = pytest.mark.xdist_group("browser")
E = "/e/0367"
CYRILLIC = re.compile("[А-Яа-яё]{3,}")
GOLDEN = Path(__file__).parent.parent / "golden"
CALLER = "+375296254070"


async def settle(desk: Desk) -> Page:
    page = await desk.entered()
    pbx = {
        "name": "main", "host": "127.0.0.1", "port": desk.pbx.port, "username": desk.pbx.username, "secret": desk.pbx.secret, "trunks": ["PJSIP/provider"],
        "internal_number": "^1\\d\\d$",
    }  # fmt: skip
    portal = {"webhook_url": "http://127.0.0.1:9/rest/1/abcdef123456/"}
    await desk.daemon.put(
        {
            "number": "0367", "name": "Июнь", "country": "BY", "pbxs": [pbx], "internal_phones": [{"number": "150", "owner": "Анна"}],
            "integrations": {"bitrix24": portal},
        }
    )  # fmt: skip
    return page


async def made(desk: Desk, kind: str, **fields: Any) -> dict[str, Any]:
    async with desk.daemon.client() as api:
        answer = await api.post(f"/api/enterprises/0367/crm/{kind}", json=fields)
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]


async def sync_as(desk: Desk, company: int) -> None:
    """What the sync would have written of a company."""
    embedded = EmbeddedPostgres(desk.daemon.data_dir)
    await embedded.start(own=False)
    db = await Database.open(embedded.url)
    conflict = {"field": "phone", "at": 1795280000, "local": "+375171112233", "remote": "+375171112244", "won": "bitrix24"}
    async with db.tenant("0367") as connection:
        await connection.execute(
            "insert into bitrix24_sync_mappings (tenant_id, local_type, local_id, bitrix24_type, bitrix24_id, sync_direction, conflicts, tasks) "
            "values ('0367', 'company', $1, 'company', 77, 'from', $2, $3)",
            company, [conflict], [{"id": 5, "title": "Уточнить сроки", "url": "javascript:alert(1)"}, {"id": 6, "title": "Счёт", "url": "https://example.com/6"}],
        )  # fmt: skip
        await connection.execute(
            "insert into integration_errors (enterprise_number, integration_type, operation, error_type, message, local_type, local_id) "
            "values ('0367', 'bitrix24', 'sync_to', 'limit', 'QUERY_LIMIT_EXCEEDED', 'company', $1)",
            company,
        )
    await db.close()
    await embedded.stop()


@pytest.mark.timeout(300)
async def test_records_are_made_found_tied_changed_and_deleted_in_the_browser(desk: Desk) -> None:
    page = await settle(desk)
    await page.goto(f"{desk.base}{E}/records")
    await expect(page.get_by_text("Здесь пока пусто")).to_be_visible()
    await page.get_by_role("link", name="Компании").click()
    await page.get_by_role("link", name="Новая компания").click()
    await page.get_by_label("Название").fill("ООО «Восток» <b>и север</b>")
    await page.get_by_label("Телефон").fill("17")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(page.locator(".field.wrong .error")).to_have_text("это не телефонный номер страны BY и не международный")
    await page.get_by_label("Телефон").fill("8 029 625-40-70")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("ООО «Восток» <b>и север</b>")
    company = int(page.url.rpartition("/")[2])

    await page.get_by_role("link", name="Добавить").click()
    await expect(page.get_by_label("Компания")).to_have_value(f"ООО «Восток» <b>и север</b> · № {company}")
    await page.get_by_label("Номер").fill("7/26")
    await page.get_by_label("Начало").fill("2026-03-01")
    await page.get_by_label("Окончание").fill("2026-02-01")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(page.locator(".field.wrong .error")).to_have_text("окончание не раньше начала")
    await page.get_by_label("Окончание").fill("2027-03-01")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(page.locator(".facts")).to_contain_text("1 мар")

    await page.get_by_role("link", name="Добавить").click()
    await page.get_by_label("Название").fill("Кран")
    await page.get_by_label("Договор").fill("7/2")
    await expect(page.locator("datalist option")).to_have_count(1)
    await page.get_by_label("Договор").fill("7/26")
    await page.get_by_label("IMEI").fill("35-693803-564380-9")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(page.locator(".facts").first).to_contain_text("356938035643809")
    await page.get_by_role("link", name="7/26").click()
    await expect(page.get_by_role("link", name="Кран")).to_be_visible()

    # Somebody else changes the number of the contract meanwhile: the form writes what was changed in it, nothing else.
    await page.get_by_role("link", name="Изменить").click()
    async with desk.daemon.client() as api:
        contract = page.url.split("/")[-2]
        assert (await api.patch(f"/api/enterprises/0367/crm/contracts/{contract}", json={"number": "8/26"})).status_code == 200
    await page.get_by_label("Окончание").fill("")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("8/26")
    await expect(page.locator(".facts").first).to_contain_text("Окончание–")

    await page.goto(f"{desk.base}{E}/records/companies")
    await page.get_by_label("Искать").fill("нет такой")
    await expect(page.get_by_text("Ничего не подходит")).to_be_visible()
    await page.get_by_label("Искать").fill("ВОСТОК")
    await page.get_by_role("link", name="Восток").click()
    await sync_as(desk, company)
    await page.reload()
    there = page.locator("section", has=page.get_by_role("heading", name="В Битрикс24"))
    await expect(there.get_by_role("link", name="компания 77")).to_have_attribute("href", "http://127.0.0.1:9/crm/company/details/77/")
    await expect(there).to_contain_text("здесь: +375171112233 · там: +375171112244 · осталось их")
    await expect(there).to_contain_text("QUERY_LIMIT_EXCEEDED")
    await expect(there.get_by_role("link", name="Счёт")).to_be_visible()
    await expect(there.get_by_role("link", name="Уточнить сроки")).to_have_count(0)

    record = f"{E}/records/companies/{company}"
    shown = (f"{E}/records/companies", f"{E}/records/contracts", f"{E}/records/objects", f"{E}/records/users", record, f"{record}/edit")
    for width, theme, language in ((1280, "light", "ru"), (390, "dark", "en")):
        other = await desk.page(width=width, theme=theme, language=language, like=page.context)
        for path in shown:
            answer = await other.goto(desk.base + path)
            assert answer is not None
            assert answer.status == 200, path
            await desk.accessible(other)
            await desk.shot(other, f"records-{path.rpartition('/')[2]}-{width}-{theme}-{language}")
            if language == "en":
                said = await other.locator("thead, label, h2, .badge, .tabs, dt, .lead, .state, .help, #menu a[href^='/e/']").all_inner_texts()
                assert [text for text in said if CYRILLIC.search(text)] == [], path

    page.once("dialog", lambda asked: asked.accept())
    await page.get_by_role("button", name="Удалить").click()
    await expect(page.get_by_text("Здесь пока пусто")).to_be_visible()


@pytest.mark.timeout(300)
async def test_a_caller_is_shown_with_the_record_on_the_board_in_the_history_and_on_the_calls_page(desk: Desk) -> None:
    page = await settle(desk)
    user = await made(desk, "users", name="Ирина Лис", phone=CALLER, role="бухгалтер")
    company = await made(desk, "companies", name="ООО «Восток»", phone=CALLER)
    await page.goto(f"{desk.base}{E}/live")
    await expect(page.locator("#pulse")).to_have_text("обновляется")
    recorded = (GOLDEN / "inbound-not-answered/asterisk-22.ami").read_bytes()
    ring = recorded.index(b"\r\n\r\n", recorded.index(b"ChannelStateDesc: Ringing")) + 4
    await asyncio.wait_for(desk.pbx.looked_at.wait(), 60)
    desk.pbx.send(recorded[:ring])
    card = page.locator(".live-call")
    await expect(card.locator("strong")).to_have_text("Ирина Лис", timeout=30_000)
    await expect(card.get_by_role("link", name="ООО «Восток»")).to_have_attribute("href", f"{E}/records/companies/{company['id']}")
    await desk.accessible(page)
    await card.locator(".records").get_by_role("link", name="Ирина Лис").click()
    await page.wait_for_url(f"**/records/users/{user['id']}")
    await page.go_back()
    await card.locator("time").click(force=True)  # the card leads to the call wherever nothing else is
    await page.wait_for_url("**/calls/*")
    await expect(page.locator(".facts").get_by_role("link", name="ООО «Восток»")).to_be_visible()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Ирина Лис")
    desk.pbx.send(recorded[ring:])
    for path in ("calls", "missed"):
        await page.goto(f"{desk.base}{E}/{path}")
        async with asyncio.timeout(60):  # the call is over once it is on both
            while not await page.locator("tbody a.known").count() or await page.get_by_text("Идёт", exact=True).count():
                await page.wait_for_timeout(200)
                await page.reload()
        await expect(page.locator("tbody .c-who").first).to_contain_text("Ирина Лис")
        await desk.accessible(page)
    await page.locator("tbody a.known").first.click()
    await page.wait_for_url(f"**/records/users/{user['id']}")
    await expect(page.locator(".calls li")).to_have_count(1)
    await expect(page.locator(".calls li")).to_contain_text("Не ответили")
