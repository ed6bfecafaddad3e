"""A conversation at the ticket desk as people have it: opened, answered, moved on; what the other side says shows by itself."""

from __future__ import annotations

import asyncio
import re
import uuid
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, expect

from lab.crm.tickets import TicketSandbox
from tests.browser.conftest import Desk

pytestmark = pytest.mark.xdist_group("browser")
E = "/e/0367"
CYRILLIC = re.compile("[А-Яа-яё]{3,}")


GOLDEN = Path(__file__).parent.parent / "golden"


async def settle(desk: Desk, tma: TicketSandbox) -> Page:
    page = await desk.entered()
    pbx = {
        "name": "main", "host": "127.0.0.1", "port": desk.pbx.port, "username": desk.pbx.username, "secret": desk.pbx.secret, "trunks": ["PJSIP/provider"],
        "internal_number": "^1\\d\\d$",
    }  # fmt: skip
    await desk.daemon.put(
        {
            "number": "0367", "name": "Июнь", "country": "BY", "pbxs": [pbx], "internal_phones": [{"number": "150", "owner": "Анна"}],
            "integrations": {"tickets": {"role": "crm", "remote_url": tma.url, "deploy_token": tma.token, "calls": {"answered": True}}},
        }
    )  # fmt: skip
    return page


@pytest.mark.timeout(300)
async def test_a_conversation_is_led_in_the_browser_and_answers_show_by_themselves(desk: Desk) -> None:
    tma = TicketSandbox("tma")
    await tma.start()
    try:
        page = await settle(desk, tma)
        await page.goto(f"{desk.base}{E}/tickets")
        await expect(page.get_by_text("В этом состоянии обращений нет.")).to_be_visible()
        key = str(uuid.uuid4())
        tma.knows(key)
        ticket = {
            "external_ticket_id": key, "subject": "Не приходит код <b>входа</b>", "message": "Здравствуйте!\nКод не приходит <script>alert(1)</script>",
            "attachments": [{"name": "снимок.png", "url": "http://127.0.0.1:9/a.png", "mime": "image/png", "size": 10}], "external_url": "https://tma.example/1",
            "project": "tma",
        }  # fmt: skip
        assert (await tma.say(desk.base, "tickets", ticket))[0] == 201
        # The list was open and gains it by itself.
        await page.get_by_role("link", name="Не приходит код <b>входа</b>").click()
        await expect(page.locator(".message.theirs .body")).to_contain_text("alert(1)")
        await page.get_by_role("textbox", name="Ответ").fill("Смотрим")
        await page.get_by_role("button", name="Отправить").click()
        await expect(page.locator(".message.ours .body")).to_have_text("Смотрим")
        await expect(page.locator(".message.ours .badge")).to_have_text("доставлено")
        assert [m["message"] for m in tma.tickets[key].messages] == ["Смотрим"]
        # A file goes along, and a page is no file.
        await page.get_by_label("Файлы").set_input_files({"name": "счёт.txt", "mimeType": "text/plain", "buffer": "сумма".encode()})
        await page.get_by_role("button", name="Отправить").click()
        await expect(page.locator(".message.ours").last.get_by_role("link", name="счёт.txt")).to_be_visible()
        await expect(page.locator(".message.ours .badge").last).to_have_text("доставлено")
        [file] = tma.tickets[key].messages[-1]["attachments"]
        async with httpx.AsyncClient(trust_env=False, timeout=60) as tma_client:
            assert (await tma_client.get(file["url"])).text == "сумма"
        await page.get_by_label("Файлы").set_input_files({"name": "page.html", "mimeType": "text/html", "buffer": b"<script>"})
        await page.get_by_role("button", name="Отправить").click()
        await expect(page.locator(".toast")).to_contain_text("этот файл принять нельзя")
        await page.reload()
        # Somebody is in the middle of a reply when the customer writes: the reply stays.
        await page.get_by_role("textbox", name="Ответ").fill("я ещё пишу")
        body = {"external_ticket_id": key, "message": "Спасибо!", "attachments": [], "sender": "tma", "external_message_id": str(uuid.uuid4())}
        assert (await tma.say(desk.base, "messages", body))[0] == 201
        await expect(page.locator(".message.theirs .body").last).to_have_text("Спасибо!")
        await expect(page.get_by_role("textbox", name="Ответ")).to_have_value("я ещё пишу")
        await page.get_by_label("Состояние").select_option("closed")
        await page.get_by_label("Ответственный").select_option("150")
        await page.get_by_role("button", name="Сохранить").click()
        await expect(page.locator(".ticket-state")).to_contain_text("закрыто")
        await expect(page.locator(".ticket-state")).to_contain_text("Анна")
        await desk.accessible(page)

        # What the other side refuses shows as a dead letter on its message.
        tma.tickets.clear()
        await page.get_by_role("textbox", name="Ответ").fill("в никуда")
        await page.get_by_role("button", name="Отправить").click()
        await expect(page.locator(".message.ours").last).to_contain_text("no such ticket")
        await desk.shot(page, "ticket-1280-auto-ru")
        for width, theme, language in ((390, "dark", "en"), (1280, "light", "ru")):
            other = await desk.page(width=width, theme=theme, language=language, like=page.context)
            for path in (f"{E}/tickets?status=", page.url.removeprefix(desk.base), f"{E}/integrations/tickets"):
                answer = await other.goto(desk.base + path)
                assert answer is not None
                assert answer.status == 200, path
                await desk.accessible(other)
                name = "tickets" if path.endswith("=") else "ticket" if "integrations" not in path else "tickets-settings"
                await desk.shot(other, f"{name}-{width}-{theme}-{language}")
                if language == "en":
                    shown = await other.locator("thead, label:not(:has(input)), h2, legend, .badge, .tabs, dt, .lead, #menu a[href^='/e/']").all_inner_texts()
                    assert [text for text in shown if CYRILLIC.search(text)] == [], path
    finally:
        await tma.stop()


async def test_a_ticket_is_opened_by_hand_and_found_again(desk: Desk) -> None:
    tma = TicketSandbox("tma")
    await tma.start()
    try:
        page = await settle(desk, tma)
        await page.goto(f"{desk.base}{E}/tickets")
        await page.get_by_role("button", name="Новое обращение").click()
        await page.get_by_label("Тема", exact=True).fill("Заявка по звонку")
        await page.get_by_label("Телефон клиента").fill("8 029 625-40-70")
        await page.get_by_label("Сообщение").fill("Просит счёт")
        await page.get_by_role("button", name="Открыть").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Заявка по звонку")
        await expect(page.locator(".lead")).to_contain_text("+375 29 625-40-70")
        async with httpx.AsyncClient(trust_env=False, timeout=60, headers={"Authorization": f"Bearer {tma.token}"}) as former:
            body = {"ticket_id": str(uuid.uuid4()), "theme": "По-старому", "message": "текст", "attachments": [], "project": "tma"}
            assert (await former.post(f"{desk.base}/api/v1/support/ticket", json=body)).status_code == 201
        await page.goto(f"{desk.base}{E}/tickets")
        legacy = page.locator("section", has=page.get_by_role("heading", name="Кто ещё приходит по адресам прежнего сервиса"))
        await expect(legacy.get_by_role("row", name="/api/v1/support/ticket")).to_contain_text("127.0.0.1")
        await desk.accessible(page)
        await page.get_by_label("Тема, телефон или номер").fill("нет такого")
        await expect(page.get_by_text("В этом состоянии обращений нет.")).to_be_visible()
        await page.get_by_label("Тема, телефон или номер").fill("254070")
        await expect(page.get_by_role("link", name="Заявка по звонку")).to_be_visible()
        async with httpx.AsyncClient(trust_env=False, timeout=60) as nobody:
            assert (await nobody.post(f"{desk.base}{E}/tickets", data={"subject": "x", "message": "y"})).status_code in (303, 403)
    finally:
        await tma.stop()


async def test_a_callers_open_ticket_is_on_the_live_board_and_the_call_is_in_the_ticket(desk: Desk) -> None:
    tma = TicketSandbox("tma")
    await tma.start()
    try:
        page = await settle(desk, tma)
        async with desk.daemon.client() as api:
            opened = await api.post("/api/enterprises/0367/tickets", json={"subject": "Счёт за июнь", "message": "Ждёт", "phone": "+375296254070"})
        await page.goto(f"{desk.base}{E}/live")
        await expect(page.locator("#pulse")).to_have_text("обновляется")
        recorded = (GOLDEN / "inbound-answered/asterisk-22.ami").read_bytes()
        ring = recorded.index(b"\r\n\r\n", recorded.index(b"ChannelStateDesc: Ringing")) + 4
        await asyncio.wait_for(desk.pbx.looked_at.wait(), 60)
        desk.pbx.send(recorded[:ring])
        badge = page.locator(".live-call .tickets").get_by_role("link", name=f"№ {opened.json()['id']} Счёт за июнь")
        await expect(badge).to_have_attribute("href", f"{E}/tickets/{opened.json()['id']}")
        await desk.accessible(page)
        await desk.shot(page, "board-with-a-ticket-1280")
        await badge.click()  # and not the card's own link below it
        await expect(page.get_by_role("heading", level=1)).to_have_text("Счёт за июнь")
        desk.pbx.send(recorded[ring:])
        note = page.locator(".message.call")
        await expect(note).to_contain_text("Входящий вызов")
        await note.get_by_role("link", name="Звонок").click()
        await expect(page.get_by_role("link", name="Счёт за июнь")).to_be_visible()
        async with desk.daemon.client() as api:
            assert (await api.get("/api/enterprises/0367/tickets", params={"call": page.url.rpartition("/")[2]})).json()["items"][0][
                "subject"
            ] == "Счёт за июнь"
    finally:
        await tma.stop()
