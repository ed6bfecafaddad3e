"""Calls, deliveries, reports and the live board as people see them, with 5,000 calls and Cyrillic names."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest
from playwright.async_api import Page, expect

from daemon.store.embedded import EmbeddedPostgres
from lab.seed import Plan, document, seed
from tests.browser.conftest import Desk

pytestmark = pytest.mark.xdist_group("browser")
GOLDEN = Path(__file__).parent.parent / "golden"
BUDGET_BYTES = 250_000
E = "/e/0367"
PAGES = (
    E + "/live", E + "/calls", E + "/calls?q=%D0%B2%D0%BE%D1%81%D1%82%D0%BE%D0%BA", E + "/calls?q=999999999",
    E + "/missed", E + "/deliveries", E + "/deliveries?state=dead",
    E + "/reports", E + "/reports?from=2020-01-01&to=2020-01-02", E + "/status", "/nodes",
)  # fmt: skip
CYRILLIC = re.compile("[А-Яа-яё]{3,}")


async def settle(desk: Desk, calls: int) -> Page:
    """An enterprise with a PBX, a CRM and a history; and somebody who is logged in."""
    pbx = {
        "name": "main", "host": "127.0.0.1", "port": desk.pbx.port, "username": desk.pbx.username, "secret": desk.pbx.secret, "trunks": ["PJSIP/provider"],
        "internal_number": "^1\\d\\d$",
    }  # fmt: skip
    await desk.daemon.put({**document("0367"), "pbxs": [pbx], "integrations": {"retailcrm": {"domain": desk.crm.url, "api_key": desk.crm.api_key}}})
    database = EmbeddedPostgres(desk.daemon.data_dir)
    await database.start(own=False)
    await seed(database.url, Plan(calls, ("0367",), days=10))
    await database.stop()
    return await desk.entered()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("width", "theme", "language", "pages"),
    [(1280, "light", "ru", PAGES), (390, "dark", "en", PAGES), (1280, "dark", "en", PAGES[:2]), (390, "light", "ru", PAGES[:2])],
)
async def test_every_page_in_both_languages_widths_and_themes(desk: Desk, width: int, theme: str, language: str, pages: tuple[str, ...]) -> None:
    other = await desk.page(width=width, theme=theme, language=language, like=(await settle(desk, 5_000)).context)
    await other.goto(desk.base + E + "/calls?result=answered")
    first = await other.locator("#rows a.over").first.get_attribute("href")
    assert first is not None
    for path in (*pages, first):
        answer = await other.goto(desk.base + path)
        assert answer is not None
        assert answer.status == 200, path
        assert (await other.locator("h1").count()) == 1, path
        await desk.accessible(other)
        name = "a-call" if path == first else path.strip("/").replace("/", "-").partition("?")[0] + ("-filtered" if "?" in path else "")
        await desk.shot(other, f"{name}-{width}-{theme}-{language}")
        if language == "en":
            shown = await other.locator("thead, label, h1, h2, .badge, .tabs, dt, .lead, #menu a[href^='/e/']").all_inner_texts()
            assert [text for text in shown if CYRILLIC.search(text) and path != first] == [], path


async def test_the_first_view_of_every_page_is_light(desk: Desk) -> None:
    like = await settle(desk, 500)
    for path in PAGES:
        page = await desk.page(like=like.context)
        sizes: list[int] = []
        page.on("response", lambda answer, sizes=sizes: sizes.append(int(answer.headers.get("content-length", 0))))
        await page.goto(desk.base + path, wait_until="load")
        assert 20_000 < sum(sizes) < BUDGET_BYTES, f"{path}: {sum(sizes)} bytes"
        await page.context.close()


async def test_history_is_searched_filtered_and_paged_without_a_reload(desk: Desk) -> None:
    page = await settle(desk, 300)
    await page.goto(f"{desk.base}{E}/calls")
    rows = page.locator("#rows tr:not(.daybreak):not(#more)")
    await expect(rows).to_have_count(50)
    await page.evaluate("window.same = true")
    await page.get_by_role("link", name="Показать более ранние").click()
    await expect(rows).to_have_count(100)
    await page.keyboard.press("/")
    await page.keyboard.type("восток")
    await expect(page).to_have_url(re.compile(r"/calls\?q=%D0%B2"))
    names = page.locator("#rows .c-who strong")
    await expect(names.filter(has_not_text="ООО «Восток, север»")).to_have_count(0)
    await expect(names).not_to_have_count(0)
    await page.get_by_label("Направление").select_option("out")
    await expect(page).to_have_url(re.compile(r"direction=out"))
    assert await page.evaluate("window.same") is True
    await expect(page.get_by_role("link", name="Таблица")).to_have_attribute("href", re.compile("direction=out"))
    await page.keyboard.press("Escape")
    await page.get_by_label("Номер или имя").fill("нет такого имени")
    await expect(page.get_by_text("Ничего не найдено")).to_be_visible()
    await page.reload()
    await expect(page.get_by_label("Номер или имя")).to_have_value("нет такого имени")
    await page.goto(f"{desk.base}{E}/calls?from=2020-99-01")
    await expect(page.get_by_text("2026-11-21")).to_be_visible()  # what a date looks like


@pytest.mark.parametrize(
    ("path", "language", "typed", "chosen"), [("/reports", "ru", "05.03.2026", "07.03.2026"), ("/calls", "en", "2026-03-05", "2026-03-07")]
)
async def test_a_day_is_typed_as_the_language_writes_it_or_chosen_in_the_calendar(desk: Desk, path: str, language: str, typed: str, chosen: str) -> None:
    page = await desk.page(language=language, like=(await settle(desk, 20)).context)
    await page.goto(f"{desk.base}{E}{path}")
    if path == "/calls":
        await page.locator("[name=period]").select_option("days")
    day = page.locator("[name=from]")
    await day.fill(typed)
    await page.evaluate(
        "HTMLInputElement.prototype.showPicker = function () { window.opened = this.value; }"
    )  # the browser's own calendar is no part of a page
    button = page.locator(".day", has=day).get_by_role("button", name=re.compile("Выбрать день|Choose a day"))
    await button.focus()
    await page.keyboard.press("Enter")
    assert await page.evaluate("window.opened") == "2026-03-05"  # it begins at the day that was typed
    await (
        page.locator(".day", has=day)
        .locator("[type=date]")
        .evaluate("(picker) => { picker.value = '2026-03-07'; picker.dispatchEvent(new Event('change', {bubbles: true})); }")
    )
    await expect(day).to_have_value(chosen)
    if path == "/calls":
        await expect(page).to_have_url(re.compile("from=2026-03-07"))
    else:
        await page.locator("[name=to]").fill(chosen)
        await page.get_by_role("button", name="Показать").click()
        await expect(page).to_have_url(re.compile("from=07.03.2026"))
        await expect(page.locator("[name=from]")).to_have_value(chosen)


async def test_a_call_shows_its_course_and_what_the_crm_was_told(desk: Desk) -> None:
    page = await settle(desk, 300)
    await page.goto(f"{desk.base}{E}/calls?result=answered&direction=in&q=%D0%BA%D0%BE%D1%82")
    await page.locator("#rows a.over").first.click()
    await expect(page.get_by_role("heading", name="Мария Кот")).to_be_visible()
    assert await page.locator(".timeline .leg").count() >= 2
    await expect(page.get_by_role("link", name="Трасса")).to_have_count(0)  # nothing was said by a PBX
    await page.locator(".told summary", has_text="Запись в журнал").click()
    await expect(page.locator(".exchange pre").first).to_contain_text("telephony/call/event")
    await page.get_by_role("link", name="← Звонки").click()
    await expect(page).to_have_url(re.compile(r"result=answered"))  # the list as it was
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Таблица").click()
    text = Path(await (await downloading.value).path()).read_text("utf-8")
    assert text.startswith("\ufeffНачало;Направление;Итог;")
    assert "Мария Кот" in text


async def test_a_call_appears_on_the_board_by_itself_and_a_cut_stream_says_so(desk: Desk) -> None:
    page = await settle(desk, 50)
    await page.goto(f"{desk.base}{E}/live")
    await expect(page.locator("#pulse")).to_have_text("обновляется")
    await expect(page.get_by_text("Ничего не звонит")).to_be_visible()
    recorded = (GOLDEN / "inbound-answered/asterisk-22.ami").read_bytes()
    ring = recorded.index(b"\r\n\r\n", recorded.index(b"ChannelStateDesc: Ringing")) + 4
    talk = recorded.index(b"\r\n\r\n", recorded.rindex(b"Event: BridgeEnter")) + 4
    await asyncio.wait_for(desk.pbx.looked_at.wait(), 60)
    desk.pbx.send(recorded[:ring])
    card = page.locator('[data-lane="ringing"] .live-call')
    await expect(card.locator("strong")).to_have_text("+375 29 625-40-70")
    await expect(page.locator(".extension.ringing")).to_have_count(1)
    desk.pbx.send(recorded[ring:talk])
    await expect(page.locator('[data-lane="talking"] .live-call')).to_have_count(1)
    await expect(page.locator(".extension.talking")).to_have_count(1)
    await desk.accessible(page)
    await desk.shot(page, "board-with-a-call-1280")
    await page.context.set_offline(True)
    await page.evaluate("stream.close(); stream.dispatchEvent(new Event('error'))")
    await expect(page.locator("#cut")).to_be_visible()
    await expect(page.locator("#pulse")).to_have_text("не обновляется")
    await page.context.set_offline(False)
    desk.pbx.send(recorded[talk:])
    await page.reload()
    await expect(page.locator("#pulse")).to_have_text("обновляется")
    await expect(page.get_by_text("Никто не разговаривает")).to_be_visible()


async def test_dead_letters_are_retried_by_cause_and_discarded_by_tick(desk: Desk) -> None:
    page = await settle(desk, 2_000)
    await page.goto(f"{desk.base}{E}/deliveries?state=dead")
    dead = page.locator(".figures dd.bad")
    before = int(await dead.inner_text())
    await expect(page.locator(".notice")).to_have_count(0)
    row = page.locator("tr", has_text="Telephony not enabled").filter(has=page.get_by_role("button", name="Повторить все"))
    many = int(await row.locator(".c-talk").inner_text())
    await row.get_by_role("button", name="Повторить все").click()
    await expect(page.locator(".toast")).to_contain_text(f"Повторяется: {many}")
    await expect(dead).to_have_text(str(before - many))
    await page.locator('input[name="id"]').first.check()
    await expect(page.locator("[data-ticked]")).to_have_text("1")
    page.once("dialog", lambda asked: asked.accept())
    await page.locator("[data-tickbar]").get_by_role("button", name="Отказаться").click()
    await expect(page.locator(".toast").last).to_contain_text("Отказались: 1")
    await expect(dead).to_have_text(str(before - many - 1))


async def test_what_callers_and_crms_say_is_shown_and_never_run(desk: Desk) -> None:
    page = await settle(desk, 200)
    hostile = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>{{7*7}}"
    database = EmbeddedPostgres(desk.daemon.data_dir)
    await database.start(own=False)
    owner = await asyncpg.connect(database.url)
    await owner.execute("update calls set customer_name = $1, queue = $1, line = $1, recordings = array[$1]", hostile)
    await owner.execute("update deliveries set last_error = $1, state = 'dead'", hostile)
    await owner.execute("update integration_logs set error_message = $1, response_data = jsonb_build_object('body', $1::text)", hostile)
    await owner.close()
    await database.stop()
    await page.goto(f"{desk.base}{E}/calls?direction=in")
    await expect(page.get_by_text(hostile).first).to_be_visible()
    first = await page.locator("#rows a.over").first.get_attribute("href")
    for path in (first, f"{E}/missed", f"{E}/deliveries", f"{E}/reports", f"{E}/calls?q={{{{7*7}}}}<script>window.hit=1</script>", f"{E}/live", f"{E}/status"):
        await page.goto(desk.base + str(path))
        assert await page.evaluate("window.hit") is None, path
        assert await page.locator("img[src=x]").count() == 0, path
