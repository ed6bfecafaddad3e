"""A day at the admin, joined: every click lands on the real daemon, a real Asterisk with its phones, and a RetailCRM account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from playwright.async_api import Page, async_playwright, expect

from daemon.store.embedded import EmbeddedPostgres
from lab.crm.retailcrm import RetailCrmSandbox
from lab.office import PHONES, TRUNKS, Office
from lab.patient import EVERYTHING
from lab.phones import Phones
from lab.run import DaemonProcess, short_directory
from lab.stage import CUSTOMER, ONE_PHONE, OTHER_CUSTOMER
from tests.browser.conftest import Desk

pytestmark = [pytest.mark.asterisk, pytest.mark.xdist_group("asterisk"), pytest.mark.timeout(600)]
E = "/e/0367"
THIRD_CUSTOMER = "+375259998877"
SLOW_MS = 60_000  # for what waits on a phone, a file that has to be stable, or a CRM


@dataclass
class Day:
    """A desk whose PBX is real."""

    desk: Desk
    office: Office
    phones: Phones

    async def missed_call(self, customer: str, name: str = "") -> None:
        """Somebody calls, lets it ring and gives up."""
        await self.phones.behave("150", "ring")
        rung = len(self.phones.shown.get("150", ()))
        call = await self.phones.call(ONE_PHONE, caller=customer, caller_name=name)
        async with asyncio.timeout(30):
            while len(self.phones.shown.get("150", ())) == rung:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)  # the caller's patience
            await call.hangup()
            await call.ended.wait()

    async def until_tried(self) -> None:
        """A journal entry waits that was tried in vain."""
        async with self.desk.daemon.client() as api, asyncio.timeout(SLOW_MS / 1000):
            while True:
                waiting = (await api.get("/api/enterprises/0367/deliveries?state=waiting")).json()["items"]
                if any(one["kind"] == "journal" and one["attempts"] for one in waiting):
                    return
                await asyncio.sleep(0.1)

    async def let_days_pass(self) -> None:
        """What waits has been tried for three days and is due for the last time."""
        database = EmbeddedPostgres(self.desk.daemon.data_dir)
        await database.start(own=False)
        owner = await asyncpg.connect(database.url)
        try:
            done = await owner.execute("update deliveries set attempts = 10, due_at = now() where state = 'waiting'")
            assert done != "UPDATE 0"
        finally:
            await owner.close()
            await database.stop()


@pytest.fixture
async def day(chromium: str, asterisk_root: Path) -> AsyncIterator[Day]:
    office = await Office.start(asterisk_root)
    crm = RetailCrmSandbox(codes=PHONES)
    crm.switches.module_required = crm.switches.check_logo = True
    daemon = DaemonProcess(short_directory("vochid-journey-"), fastagi=f"127.0.0.1:{office.ports.fastagi}", patience=EVERYTHING)
    try:
        await crm.start()
        await daemon.start()
        async with Phones(office) as phones, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            desk = Desk(browser, daemon, None, crm)
            yield Day(desk, office, phones)
            await browser.close()
            assert desk.complaints == []
    finally:
        await daemon.stop()
        await crm.stop()
        await office.stop()


async def test_a_day_from_the_set_up_link_to_a_dead_letter_that_was_told_after_all(day: Day) -> None:
    page = await day.desk.entered()
    await make_the_enterprise(day, page)
    await name_the_phones(page)
    await say_where_recordings_are(day, page)
    await connect_the_crm(day, page)
    await give_extensions(day, page)
    await watch_a_call(day, page)
    await look_at_the_call(day, page)
    await call_the_missed_ones_back(day, page)
    await open_the_cabinet(day)
    await retry_a_dead_letter(day, page)


async def make_the_enterprise(day: Day, page: Page) -> None:
    """A wrong secret is told before anything is saved; then every check is green."""
    await page.get_by_role("link", name="Новое предприятие").click()
    await page.get_by_label("Номер", exact=True).fill("0367")
    await page.get_by_label("Название").first.fill("Июнь")
    await page.get_by_label("Адрес").fill("127.0.0.1")
    await page.get_by_label("Порт").fill(str(day.office.ports.pbx_ami))
    await page.get_by_label("Имя пользователя").fill("vochid")
    await page.get_by_label("Секрет").fill("not the secret")
    await page.get_by_label("Контекст внутренних телефонов").fill("inoffice")
    await page.get_by_label("Контексты входящих звонков").fill("from-trunk")
    await page.get_by_label("Внешние линии").fill("\n".join(TRUNKS))
    await page.get_by_label("Внутренние номера").fill("^1\\d\\d$")
    await page.get_by_role("button", name="Проверить и сохранить").click()
    await expect(page.locator(".checks .bad")).to_contain_text("вход по AMI", timeout=SLOW_MS)
    await page.get_by_label("Секрет").fill(day.office.secret)
    await page.get_by_role("button", name="Проверить и сохранить").click()
    await page.wait_for_url(f"**{E}", timeout=SLOW_MS)
    await expect(page.get_by_text("на связи")).to_be_visible(timeout=SLOW_MS)


async def name_the_phones(page: Page) -> None:
    await page.get_by_role("link", name="Настройки", exact=True).click()
    await page.get_by_role("link", name="Линии и телефоны").click()
    await page.get_by_label("Внутренние телефоны").fill("150; Анна Ковальчук\n151; Пётр Лис\n152")
    await page.get_by_label("Свои внешние номера").fill(f"{ONE_PHONE}; Отдел продаж")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(page.get_by_role("button", name="Сохранить")).to_be_hidden()


async def say_where_recordings_are(day: Day, page: Page) -> None:
    """The checks stand on the page in full: rights, event classes, the clock."""
    await page.get_by_role("link", name="АТС", exact=True).click()
    await page.get_by_role("link", name="main").click()
    recordings = page.get_by_role("group", name="Записи разговоров")
    await recordings.get_by_label("Откуда").select_option("directory")
    await recordings.get_by_label("Каталог", exact=True).fill(str(day.office.pbx.directory / "spool/monitor"))
    await recordings.get_by_label("Этот же каталог на АТС").fill(f"{day.office.pbx.pbx_directory}/spool/monitor")
    await page.get_by_role("button", name="Только проверить").click()
    checks = page.locator(".checks li")
    await expect(checks).to_have_count(5, timeout=SLOW_MS)
    await expect(page.locator(".checks li.good")).to_have_count(5)
    for what in ("вход по AMI", "права", "события", "часы", "второе мнение"):
        await expect(checks.filter(has_text=what)).to_have_count(1)
    await page.get_by_role("button", name="Проверить и сохранить").click()
    await page.wait_for_url("**/settings/pbx", timeout=SLOW_MS)


async def connect_the_crm(day: Day, page: Page) -> None:
    crm = day.desk.crm
    await page.get_by_role("link", name="Интеграции").click()
    await page.get_by_role("link", name="Подключить RetailCRM").click()
    await page.get_by_label("Адрес аккаунта").fill(crm.url)
    await page.get_by_label("Ключ API").fill(crm.api_key)
    await page.get_by_role("button", name="Проверить соединение").click()
    await expect(page.get_by_text("Соединение проверено")).to_be_visible()
    assert await page.locator(".checks .bad").count() == 0
    assert crm.account.telephony is None  # nothing was told yet
    await page.get_by_label("Ключ API").fill(crm.api_key)
    await page.get_by_role("button", name="Сохранить и зарегистрировать").click()
    await expect(page.get_by_text("Сохранено и зарегистрировано.")).to_be_visible()
    assert crm.account.telephony is not None


async def give_extensions(day: Day, page: Page) -> None:
    """Save appears on change, and the account knows the number."""
    save = page.locator("#managers").get_by_role("button", name="Сохранить")
    await expect(page.get_by_role("heading", name="Менеджеры и их внутренние номера")).to_be_visible()
    await expect(save).to_be_hidden()
    await page.get_by_label("Внутренний номер: Анна Сидорова").select_option("150")
    await save.click()
    await expect(page.locator("#managers .notice.good")).to_have_text("Сохранено.")
    assert day.desk.crm.account.codes == {19: "150"}


async def watch_a_call(day: Day, page: Page) -> None:
    """It rings, is talked and goes, and the board shows it without a reload."""
    await page.get_by_role("link", name="Сейчас", exact=True).click()
    await expect(page.locator("#pulse")).to_have_text("обновляется")
    await page.evaluate("window.same = true")
    await day.phones.behave("150", "ring")
    call = await day.phones.call(ONE_PHONE, caller=CUSTOMER, caller_name="Тимофей Щука")
    await expect(page.locator('[data-lane="ringing"] .live-call')).to_contain_text("Тимофей Щука")
    await expect(page.locator(".extension.ringing")).to_contain_text("150")
    await day.phones.pick_up("150")
    await expect(page.locator('[data-lane="talking"] .live-call')).to_contain_text("Анна Ковальчук")
    await expect(page.locator(".extension.talking")).to_contain_text("150")
    await day.desk.shot(page, "journey-board-1280")
    await asyncio.sleep(2.5)  # there is something to listen to
    await call.hangup()
    await expect(page.locator(".live-call.ended")).to_contain_text("Отвечен")
    assert await page.evaluate("window.same") is True


async def look_at_the_call(day: Day, page: Page) -> None:
    """History, course, what the CRM was told, the recording played, the trace taken."""
    async with asyncio.timeout(SLOW_MS / 1000):
        while not any(entry.get("recordUrl") for entry in day.desk.crm.journal.values()):
            await asyncio.sleep(0.1)
    await page.get_by_role("link", name="Звонки", exact=True).click()
    await page.locator("#rows a.over", has_text="Тимофей Щука").click()
    await expect(page.get_by_role("heading", name="Тимофей Щука")).to_be_visible()
    assert await page.locator(".timeline .leg").count() == 2
    for what in ("Карточка", "Закрытие карточки", "Запись в журнал"):
        await expect(page.locator(".told li", has_text=what).locator(".badge.good").first).to_have_text("доставлено")
    await page.locator(".told summary", has_text="Запись в журнал").click()
    await expect(page.locator(".told details[open] .exchange pre").first).to_contain_text("calls/upload")
    await day.desk.shot(page, "journey-call-1280")
    seconds = await page.locator("audio").evaluate(
        "async (a) => { a.muted = true; await a.play(); await new Promise(go => a.addEventListener('timeupdate', () => a.currentTime > 0.2 && go()));"
        " a.pause(); return a.duration; }"
    )
    assert 2 < seconds < 60
    link = page.get_by_role("link", name="Трасса")
    address = day.desk.base + (await link.get_attribute("href") or "")
    async with asyncio.timeout(SLOW_MS / 1000):
        while (await (await page.request.get(address)).body()).count(b"Event: Hangup\r\n") < 2:  # the last part
            await asyncio.sleep(0.1)
    async with page.expect_download() as downloading:
        await link.click()
    trace = Path(await (await downloading.value).path()).read_bytes()
    assert trace.count(b"Event: Hangup\r\n") >= 2


async def call_the_missed_ones_back(day: Day, page: Page) -> None:
    """One click: 150 rings, the customer answers, and the call leaves the list by itself. Another is marked done."""
    await page.get_by_role("link", name="Пропущенные").click()
    await expect(page.get_by_text("Никто не ждёт звонка")).to_be_visible()
    await day.missed_call(OTHER_CUSTOMER, "Вера Одинец")
    await day.missed_call(THIRD_CUSTOMER)
    rows = page.locator("#rows tr")
    await expect(rows).to_have_count(2, timeout=SLOW_MS)
    await day.phones.behave("150", "answer", delay_s=0.5)
    await day.phones.behave(OTHER_CUSTOMER, "answer", delay_s=0.5)
    await rows.filter(has_text="Вера Одинец").get_by_role("button", name="Позвонить").click()
    await page.get_by_label("Сначала зазвонит ваш телефон").select_option("150")
    await page.locator("#dial-form").get_by_role("button", name="Позвонить").click()
    await expect(page.locator(".toast")).to_contain_text("Ваш телефон звонит")
    await expect(rows).to_have_count(1, timeout=SLOW_MS)
    await day.phones.hangup_callee(OTHER_CUSTOMER)
    await rows.get_by_role("button", name="Готово").click()
    await expect(page.get_by_text("Никто не ждёт звонка")).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("Никто не ждёт звонка")).to_be_visible()
    await page.get_by_role("link", name="Звонки", exact=True).click()
    await expect(page.locator("#rows tr", has_text="+375 44 765-43-21").locator(".way.out")).to_be_visible()


async def open_the_cabinet(day: Day) -> None:
    """RetailCRM's administrator comes by the account's own button, from another site, without any session here."""
    context = await day.desk.browser.new_context(viewport={"width": 1280, "height": 900}, locale="ru")
    account = await context.new_page()
    await account.goto(f"http://localhost:{urlsplit(day.desk.crm.url).port}/")
    async with context.expect_page() as opening:
        await account.get_by_role("button", name="Open the cabinet").click()
    cabinet = await opening.value
    await expect(cabinet.get_by_role("heading", name="Июнь RetailCRM")).to_be_visible()
    assert cabinet.url == f"{day.desk.base}/cabinet"
    await expect(cabinet).to_have_title("Июнь RetailCRM")
    await cabinet.get_by_label("Внутренний номер: Борис Ковальчук").select_option("151")
    await cabinet.locator("#managers").get_by_role("button", name="Сохранить").click()
    await expect(cabinet.locator("#managers .notice.good")).to_be_visible()
    await day.desk.shot(cabinet, "journey-cabinet-1280")
    await cabinet.get_by_role("button", name="Сохранить и зарегистрировать").click()
    await expect(cabinet.get_by_text("Сохранено и зарегистрировано.")).to_be_visible()
    await context.close()


async def retry_a_dead_letter(day: Day, page: Page) -> None:
    """The account's server is down for three days; once it is back, one click tells it."""
    crm = day.desk.crm
    port, told = urlsplit(crm.url).port or 0, len(crm.journal)
    await crm.stop()
    await day.phones.behave("150", "answer")
    call = await day.phones.call(ONE_PHONE, caller=CUSTOMER)
    await asyncio.wait_for(call.answered.wait(), 30)
    await call.hangup()
    await day.until_tried()
    await day.let_days_pass()
    await page.get_by_role("link", name="Доставки").click()
    async with asyncio.timeout(SLOW_MS / 1000):
        while not await page.locator(".figures dd.bad").count():
            await asyncio.sleep(0.5)
            await page.reload()
    await page.get_by_role("navigation", name="Состояние").get_by_role("link", name="не доставлено").click()
    await day.desk.shot(page, "journey-dead-letter-1280")
    await crm.start(port)
    await page.get_by_role("button", name="Повторить все").first.click()
    await expect(page.locator(".toast")).to_contain_text("Повторяется: 1")
    async with asyncio.timeout(SLOW_MS / 1000):
        while len(crm.journal) == told:
            await asyncio.sleep(0.1)
    assert crm.duplicates == 0
    await page.reload()
    await expect(page.get_by_text("Здесь пусто")).to_be_visible()
