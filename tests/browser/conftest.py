"""A real browser on a running daemon, with a PBX that can only remember and a RetailCRM sandbox."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from lab.asterisk import LabUnavailable
from lab.chromium import ensure_chromium
from lab.crm.retailcrm import RetailCrmSandbox
from lab.fakepbx import FakePbx
from lab.office import PHONES
from lab.patient import EVERYTHING
from lab.run import DaemonProcess, short_directory

expect.set_options(timeout=30_000)  # of what does not come at all; what comes is not waited for
# Toasts (app.js) and the cards of calls that ended (board.js) go by themselves after so many ms: here they stay until they were looked at.
LASTING = "{ const soon = setTimeout; window.setTimeout = (what, ms, ...more) => soon(what, [4500, 9000, 6000].includes(ms) ? 600000 : ms, ...more); }"
PASSWORD = "верный конь батарея"
SHOTS = Path(os.environ.get("VOCHID_TEST_SHOTS") or Path(__file__).parent.parent.parent / "build" / "screenshots")

# What holds more than it shows; but for texts that end in an ellipsis, what is typed into fields, and what is only to be heard.
WIDER_THAN_THEMSELVES = """() => [...document.querySelectorAll("body :not(input, textarea, select)")].filter((part) => {
  const style = getComputedStyle(part);
  return part.scrollWidth > part.clientWidth + 1 && part.clientWidth > 1 && style.display !== "inline" && style.textOverflow !== "ellipsis"
    && !part.closest("svg") && part.checkVisibility();
}).map((part) => `${part.tagName}.${part.className} ${part.scrollWidth} > ${part.clientWidth}: ${part.textContent.trim().slice(0, 60)}`)"""


@pytest.fixture(scope="session")
def chromium() -> str:
    """Skipped with the reason where there is no browser, except in CI."""
    try:
        return ensure_chromium()
    except LabUnavailable as why:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(why))


@dataclass
class Desk:
    """Somebody at a browser. Whatever a page complains about, or asks of another host, is kept and is a failure at the end."""

    browser: Browser
    daemon: DaemonProcess
    pbx: FakePbx
    crm: RetailCrmSandbox
    complaints: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://{self.daemon.http}"

    async def page(self, *, width: int = 1280, theme: str = "auto", language: str = "ru", like: BrowserContext | None = None) -> Page:
        """A page of its own; `like`: with the cookies of another."""
        context = await self.browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        if like is not None:
            await context.add_cookies(await like.cookies())  # type: ignore[arg-type]
        await context.add_cookies([{"name": f"vochid_{name}", "value": value, "url": self.base} for name, value in (("theme", theme), ("language", language))])
        await context.add_init_script(LASTING)
        page = await context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("console", lambda said: self.complaints.append(f"{page.url}: {said.text}") if said.type == "error" and "status of 4" not in said.text else None)
        page.on("request", lambda asked: None if asked.url.startswith((self.base, "data:")) else self.complaints.append(f"asked {asked.url}"))
        return page

    async def entered(self) -> Page:
        """The first administrator: come by the one-time link, later by the password."""
        page = await self.page()
        answer = await page.goto(self.daemon.first_link)
        is_first = answer is not None and answer.status == 200
        if not is_first:
            await page.goto(f"{self.base}/login")
        await page.get_by_label("Логин").fill("anna")
        await page.get_by_label("Пароль", exact=True).fill(PASSWORD)
        await page.get_by_role("button", name="Сохранить и войти" if is_first else "Войти").click()
        await page.wait_for_url("**/enterprises")
        return page

    async def shot(self, page: Page, name: str) -> None:
        """A picture for people; and neither the page nor, on a phone, anything on it scrolls sideways or is cut off."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{page.url} scrolls sideways at {name}"
        if (page.viewport_size or {})["width"] < 600:
            assert await page.evaluate(WIDER_THAN_THEMSELVES) == [], f"{page.url} at {name}"

    async def accessible(self, page: Page) -> None:
        """No finding of axe: names, labels, contrast, order of headings, landmarks; on a page at rest (what is being fetched anew is dimmed)."""
        await expect(page.locator(".htmx-request")).to_have_count(0)
        found = (await Axe().run(page)).response["violations"]
        told = [f"{one['id']}: {one['help']}: {node['html'][:150]} {node.get('failureSummary', '')[:200]}" for one in found for node in one["nodes"][:3]]
        assert told == [], f"{page.url}: {told}"


@pytest.fixture(scope="module")
def daemon() -> Iterator[DaemonProcess]:
    """One for a file: its tests are of one worker and leave no enterprise behind."""
    process, loop = DaemonProcess(short_directory("vochid-browser-"), patience=EVERYTHING), asyncio.new_event_loop()
    loop.run_until_complete(process.start())
    yield process
    loop.run_until_complete(process.stop())
    loop.close()


@pytest.fixture
async def desk(chromium: str, daemon: DaemonProcess) -> AsyncIterator[Desk]:
    crm, pbx = RetailCrmSandbox(codes=PHONES), FakePbx()
    await crm.start()
    await pbx.start()
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            desk = Desk(browser, daemon, pbx, crm)
            yield desk
            await browser.close()
            assert desk.complaints == []
    finally:
        async with daemon.client() as api:
            for one in (await api.get("/api/enterprises")).json()["items"]:
                await api.delete(f"/api/enterprises/{one['number']}")
        await pbx.stop()
        await crm.stop()
