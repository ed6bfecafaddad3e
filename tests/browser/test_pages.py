"""The admin as people see it: in a real browser, both languages, both widths, both themes."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import PASSWORD, Desk

pytestmark = pytest.mark.xdist_group("browser")
BUDGET_BYTES = 250_000
HOSTILE = '"><img src=x onerror="window.hit=1"><script>window.hit=1</script>{{7*7}}\''
PAGES = (
    "/enterprises", "/enterprises/new", "/e/0367", "/e/0367/settings", "/e/0367/settings/numbers", "/e/0367/settings/pbx", "/e/0367/settings/pbx/main",
    "/e/0367/settings/dial", "/e/0367/integrations", "/e/0367/integrations/retailcrm", "/people", "/audit", "/account", "/account/totp",
)  # fmt: skip


async def make_enterprise(desk: Desk, page: Page, number: str, name: str) -> None:
    """Creates one with its PBX, as a person does."""
    await page.goto(f"{desk.base}/enterprises/new")
    await page.get_by_label("Номер", exact=True).fill(number)
    await page.get_by_label("Название").first.fill(name)
    await page.get_by_label("Адрес").fill("127.0.0.1")
    await page.get_by_label("Порт").fill(str(desk.pbx.port))
    await page.get_by_label("Имя пользователя").fill(desk.pbx.username)
    await page.get_by_label("Секрет").fill(desk.pbx.secret)
    await page.get_by_label("Внешние линии").fill("PJSIP/provider")
    await page.get_by_role("button", name="Проверить и сохранить").click()


async def test_from_the_set_up_link_to_a_connected_crm(desk: Desk) -> None:
    page = await desk.page()
    sizes: list[int] = []
    page.on("response", lambda answer: sizes.append(int(answer.headers.get("content-length", 0))))
    await page.goto(desk.base)
    assert page.url == f"{desk.base}/login"
    await expect(page.get_by_text("Войти пока некому.")).to_be_visible()
    await desk.accessible(page)
    await desk.shot(page, "login-1280")
    assert sum(sizes) < BUDGET_BYTES, f"the first view has {sum(sizes)} bytes"

    page = await desk.entered()
    await expect(page.get_by_text("Предприятий ещё нет")).to_be_visible()
    await desk.accessible(page)

    desk.pbx.login = "refuse"  # a PBX that says no is told before anything is saved
    await make_enterprise(desk, page, "0367", "Июнь")
    await expect(page.get_by_text("АТС проверена")).to_be_visible()
    await desk.accessible(page)
    await desk.shot(page, "new-enterprise-refused-1280")
    desk.pbx.login = "accept"
    await page.get_by_label("Секрет").fill(desk.pbx.secret)
    await page.get_by_role("button", name="Проверить и сохранить").click()
    await expect(page.get_by_text("не хватает: write=originate")).to_be_visible()  # this PBX can only remember: it lacks rights
    await page.get_by_label("Секрет").fill(desk.pbx.secret)
    await page.get_by_label("Сохранить, хотя АТС").check()
    await page.get_by_role("button", name="Проверить и сохранить").click()
    await page.wait_for_url("**/e/0367")
    await expect(page.get_by_text("на связи")).to_be_visible()  # comes by itself

    await page.goto(f"{desk.base}/e/0367/settings/numbers")
    await expect(page.get_by_role("button", name="Сохранить")).to_be_hidden()
    await page.get_by_label("Внутренние телефоны").fill("150; Приёмная\n151\tАнна Иванова\n152")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(page.get_by_label("Внутренние телефоны")).to_have_value("150; Приёмная\n151; Анна Иванова\n152")
    await page.get_by_label("Внутренние телефоны").fill("150\nabc")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(page.get_by_text("Строка 2")).to_be_visible()

    await page.get_by_role("link", name="Интеграции").click()
    await page.get_by_role("link", name="Подключить RetailCRM").click()
    await page.get_by_label("Адрес аккаунта").fill(desk.crm.url)
    await page.get_by_label("Ключ API").fill("wrong-key")
    await page.get_by_role("button", name="Сохранить", exact=True).click()
    await expect(page.get_by_label("Ключ API")).to_have_attribute("aria-invalid", "true")
    await expect(page.locator("#d-api_key")).to_have_text("403: неверный ключ API.")
    said = await page.locator(".checks li, .error, .notice").all_inner_texts()
    assert said
    assert [text for text in said if not re.search("[А-Яа-яё]{3,}", text)] == []
    await desk.accessible(page)
    await page.get_by_label("Ключ API").fill(desk.crm.api_key)
    await page.get_by_role("button", name="Сохранить", exact=True).click()
    await expect(page.get_by_text("Сохранено.")).to_be_visible()
    assert desk.crm.api_key not in await page.content()
    await page.get_by_label("Режим").select_option("observe")
    await page.get_by_role("button", name="Сохранить", exact=True).click()
    await expect(page.get_by_role("heading", name="Июнь RetailCRM")).to_be_visible()
    await expect(page.locator(".badge", has_text="наблюдение")).to_be_visible()

    await page.goto(f"{desk.base}/audit")
    await expect(page.get_by_text("live → observe")).to_be_visible()
    assert desk.crm.api_key not in await page.content()


@pytest.mark.parametrize(
    ("width", "theme", "language", "pages"),
    [(1280, "light", "ru", PAGES), (390, "dark", "en", PAGES), (1280, "dark", "en", PAGES[2:3] + PAGES[9:11]), (390, "light", "ru", PAGES[2:3] + PAGES[9:11])],
)
async def test_every_page_in_both_languages_widths_and_themes(desk: Desk, width: int, theme: str, language: str, pages: tuple[str, ...]) -> None:
    page = await desk.entered()
    pbx = {"name": "main", "host": "127.0.0.1", "port": desk.pbx.port, "username": desk.pbx.username, "secret": desk.pbx.secret}
    document = {
        "number": "0367",
        "name": "ООО «Восток, север» и очень длинное имя торгового дома",
        "pbxs": [pbx],
        "internal_phones": [{"number": "150", "owner": "Приёмная"}],
    }
    await desk.daemon.put({**document, "integrations": {"retailcrm": {"domain": desk.crm.url, "api_key": desk.crm.api_key}}})
    other = await desk.page(width=width, theme=theme, language=language, like=page.context)
    for path in pages:
        await other.goto(desk.base + path)
        assert (await other.locator("h1").count()) == 1, path
        await desk.accessible(other)
        await desk.shot(other, f"{path.strip('/').replace('/', '-')}-{width}-{theme}-{language}")
        if language == "en":
            left = re.findall("[А-Яа-яё]{3,}", await other.locator("body").inner_text())
            people = {word for user in desk.crm.account.users.values() for word in user.name.split()}
            assert set(left) <= {
                "Рус",
                "ООО",
                "Восток",
                "север",
                "очень",
                "длинное",
                "имя",
                "торгового",
                "дома",
                "Приёмная",
                "Анна",
                "Иванова",
                "Июнь",
                *people,
            }, (path, left)


async def test_language_theme_and_menu_are_switched_by_hand(desk: Desk) -> None:
    page = await desk.entered()
    await page.get_by_role("button", name="Eng").click()
    await expect(page.get_by_role("heading", name="Enterprises")).to_be_visible()
    await page.get_by_role("button", name="dark").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 20, 21)"
    await page.get_by_role("button", name="light").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(245, 246, 247)"
    await page.set_viewport_size({"width": 390, "height": 800})
    await expect(page.get_by_role("link", name="People")).to_be_hidden()
    await page.get_by_role("button", name="Menu").click()
    await page.get_by_role("link", name="People").click()
    await page.wait_for_url("**/people")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.goto(f"{desk.base}/account")
    await page.get_by_role("button", name="Log out").click()
    await page.get_by_label("Login").fill("anna")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/enterprises")


async def test_what_strangers_write_is_shown_and_never_run(desk: Desk) -> None:
    page = await desk.entered()
    pbx = {"name": "main", "host": "127.0.0.1", "port": desk.pbx.port, "username": desk.pbx.username, "secret": desk.pbx.secret}
    crm = {"domain": desk.crm.url, "api_key": desk.crm.api_key, "module_name": HOSTILE[:99]}
    phones = [{"number": "150", "owner": HOSTILE}]
    await desk.daemon.put({"number": "0367", "name": HOSTILE, "pbxs": [pbx], "internal_phones": phones, "integrations": {"retailcrm": crm}})
    for path in ("/enterprises", *PAGES[2:]):
        await page.goto(desk.base + path)
        assert await page.evaluate("window.hit") is None, path
        assert await page.locator("img[src=x]").count() == 0, path
        assert "49" not in await page.title()
    await page.goto(f"{desk.base}/e/0367/settings/numbers")
    await expect(page.get_by_label("Внутренние телефоны")).to_have_value(f"150; {HOSTILE}")
