"""Pictures of every page with invented data: `python -m lab.screenshots [DIR]`; with --docs only those of the README in both themes, into docs/img/.

A PBX that can only remember keeps some recorded calls alive, under other numbers and names, so that the live board has something to show.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lab.chromium import ensure_chromium
from lab.crm.bitrix24 import Bitrix24Sandbox
from lab.crm.retailcrm import RetailCrmSandbox
from lab.crm.tickets import TicketSandbox
from lab.fakepbx import FakePbx
from lab.office import REPOSITORY
from lab.run import DaemonProcess, short_directory
from lab.seed import EXTENSIONS, LINES, NAMES, Plan, document, seed

GOLDEN = REPOSITORY / "tests/golden"
DOCS = REPOSITORY / "docs/img"
E = "/e/0367"
PAGES = {
    "enterprises": "/enterprises", "overview": E, "live": E + "/live", "calls": E + "/calls", "missed": E + "/missed", "deliveries": E + "/deliveries",
    "dead-letters": E + "/deliveries?state=dead", "reports": E + "/reports", "status": E + "/status", "integrations": E + "/integrations",
    "integration": E + "/integrations/retailcrm", "settings": E + "/settings", "numbers": E + "/settings/numbers", "pbx": E + "/settings/pbx/main",
    "dial": E + "/settings/dial", "people": "/people", "audit": "/audit", "account": "/account", "nodes": "/nodes", "tickets": E + "/tickets",
    "rules": E + "/integrations/bitrix24/rules", "bitrix24": E + "/integrations/bitrix24", "new": "/enterprises/new",
    "nothing": E + "/calls?q=999999999", "nobody": "/e/0412/missed", "no-calls": "/e/0412/calls", "quiet": "/e/0412/live", "no-such-page": "/e/0367/nothing",
}  # fmt: skip
README = ("live", "calls", "call", "reports", "integration", "missed")
VARIANTS = [(width, theme, language) for width in (1280, 390) for theme in ("light", "dark") for language in ("ru", "en")]
README_SIZE = (1280, 860)
QUALITY = 82


@dataclass(frozen=True)
class Scene:
    """A recorded call that goes on: up to the last `until`, as another customer, extension and line."""

    recording: str
    until: bytes
    customer: str
    name: str
    extension: str
    line: str

    def events(self, number: int) -> bytes:
        """The recording's bytes; `number` keeps its channels and bridges apart from those of other scenes."""
        data = (GOLDEN / self.recording / "asterisk-22.ami").read_bytes()
        data = data[: data.index(b"\r\n\r\n", data.rindex(self.until)) + 4]
        data = re.sub(rb"(PJSIP/[\w]+-)0000", rb"\g<1>%04d" % number, data)
        data = re.sub(rb"(BridgeUniqueid: )[0-9a-f]{4}", rb"\g<1>%04d" % number, data)
        data = re.sub(rb"\b(\d{10})\.(\d+)", rb"\g<1>.%d\g<2>" % number, data)
        data = re.sub(rb"(Num: \+?)375296254070(\r\n\w*Name: )[^\r]*", rb"\g<1>375296254070\g<2>" + self.name.encode(), data)
        data = data.replace(b"375296254070", self.customer.encode()).replace(b"37517111223", b"@LINE@")
        data = re.sub(rb"@LINE@\d", self.line.lstrip("+").encode(), data)
        return re.sub(rb"\b150\b", self.extension.encode(), data)


SCENES = (
    Scene("inbound-answered", b"Event: BridgeEnter", "375293456712", NAMES[2], "151", LINES[0]),
    Scene("inbound-answered", b"Event: BridgeEnter", "375447810044", NAMES[1], "153", LINES[1]),
    Scene("inbound-answered", b"ChannelStateDesc: Ringing", "375256602318", NAMES[7], "150", LINES[0]),
    Scene("queue-abandoned", b"Event: QueueCallerJoin", "375331120457", NAMES[4], "154", LINES[2]),
)


@asynccontextmanager
async def furnished() -> AsyncIterator[tuple[DaemonProcess, RetailCrmSandbox]]:
    """A daemon with a history of ten days, calls that live, a CRM, and two quiet enterprises."""
    daemon, crm = DaemonProcess(short_directory("vochid-shots-")), RetailCrmSandbox(codes=EXTENSIONS)
    portal, tma = Bitrix24Sandbox(), TicketSandbox("tma")
    pbx = FakePbx(devices={f"PJSIP/{extension}": "NOT_INUSE" for extension in EXTENSIONS[:5]})
    for box in (crm, portal, tma):
        await box.start()
    await pbx.start()
    try:
        await daemon.start()
        link = {
            "name": "main", "host": "127.0.0.1", "port": pbx.port, "username": pbx.username, "secret": pbx.secret, "trunks": ["PJSIP/provider"],
            "internal_number": "^1\\d\\d$", "recordings": {"source": "directory", "path": str(daemon.data_dir)},
        }  # fmt: skip
        users = [str(user.id) for user in crm.account.users.values() if user.active]
        integration = {"domain": crm.url, "api_key": crm.api_key, "user_extensions": dict(zip(users, EXTENSIONS[:4], strict=False))}
        rules = [
            {"direction": "in", "answered": False, "do": "task", "responsible": "entity", "task_deadline_s": 900},
            {"line": LINES[0], "known": False, "do": "lead", "responsible": "first_answered"},
        ]  # fmt: skip
        desk = {"role": "crm", "remote_url": tma.url, "deploy_token": tma.token}
        integrations = {"retailcrm": integration, "bitrix24": portal.settings(mode="observe", rules=rules), "tickets": desk}
        await daemon.put({**document("0367", "Июнь"), "pbxs": [link], "integrations": integrations})
        await daemon.put({**document("0412", "ООО «Лес и поле»"), "integrations": {"retailcrm": {**integration, "mode": "observe", "user_extensions": {}}}})
        await daemon.put({**document("0500", "ЧУП «Ромашка»"), "paused": True})
        await _write_history(daemon)
        async with daemon.client() as api:
            await api.post("/api/enterprises/0367/integrations/retailcrm/register")
            await _write_tickets(api)
        await asyncio.wait_for(pbx.connected.wait(), 15)
        await asyncio.sleep(0.5)
        for number, scene in enumerate(SCENES, 1):
            events = scene.events(number)
            pbx.channels += sorted({found.decode() for found in re.findall(rb"\bUniqueid: (\S+)", events)})  # it is asked from time to time what lives
            pbx.send(events)
        yield daemon, crm
    finally:
        await daemon.stop()
        await pbx.stop()
        for box in (crm, portal, tma):
            await box.stop()


async def _write_tickets(api: httpx.AsyncClient) -> None:
    """Tickets of customers who are calling just now, and of one who is not."""
    tickets = "/api/enterprises/0367/tickets"
    for subject, said, scene, status in (
        ("Не приходит код для входа", "Здравствуйте! Код из SMS не приходит второй день.", SCENES[0], "in_progress"),
        ("Счёт за ноябрь", "Пришлите, пожалуйста, счёт на почту бухгалтерии.", SCENES[1], "open"),
        ("Вернуть датчик", "Датчик больше не нужен, как его вернуть?", None, "open"),
    ):
        phone = f"+{scene.customer}" if scene else "+375296254070"
        opened = (await api.post(tickets, json={"subject": subject, "message": said, "phone": phone})).json()
        if status == "in_progress":
            await api.post(f"{tickets}/{opened['id']}/messages", json={"message": "Проверили: номер был записан с ошибкой. Исправили, попробуйте ещё раз."})
            await api.put(f"{tickets}/{opened['id']}/status", json={"status": status, "agent": scene.extension if scene else ""})


async def _write_history(daemon: DaemonProcess) -> None:
    from daemon.store.embedded import EmbeddedPostgres

    database = EmbeddedPostgres(daemon.data_dir)
    await database.start(own=False)
    try:
        await seed(database.url, Plan(5_000, ("0367",), days=10, today=True))
    finally:
        await database.stop()


async def take(directory: Path, *, docs: bool, only: frozenset[str] = frozenset()) -> None:
    """All pictures, those called `only`, or the README's. PNG of whole pages for looking at; WebP of a screen for the README."""
    from playwright.async_api import async_playwright

    directory.mkdir(parents=True, exist_ok=True)
    async with furnished() as (daemon, _), async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=ensure_chromium(), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        first = await browser.new_context()
        await _enter(await first.new_page(), daemon)
        base = f"http://{daemon.http}"
        for width, theme, language in [(README_SIZE[0], theme, "ru") for theme in ("light", "dark")] if docs else VARIANTS:
            region = {"ru": "ru-RU", "en": "en-GB"}[language]
            context = await browser.new_context(viewport={"width": width, "height": README_SIZE[1]}, reduced_motion="reduce", locale=region)
            await context.add_cookies(await first.cookies())  # type: ignore[arg-type]
            await context.add_cookies([{"name": f"vochid_{name}", "value": value, "url": base} for name, value in (("theme", theme), ("language", language))])
            page = await context.new_page()
            for name, path in _wanted(docs, only):
                await _open(page, base, name, path)
                if docs:
                    await _webp(page, directory / f"{name}{'-dark' if theme == 'dark' else ''}.webp")
                else:
                    await page.screenshot(path=directory / f"{name}-{width}-{theme}-{language}.png", full_page=name != "calls")
            await context.close()
        await browser.close()


def _wanted(docs: bool, only: frozenset[str]) -> Iterator[tuple[str, str]]:
    for name, path in {**PAGES, "call": E + "/calls?result=answered&direction=in&q=%D0%BA%D0%BE%D1%82", "ticket": E + "/tickets"}.items():
        if name in README if docs else not only or name in only:
            yield name, path


async def _enter(page: Any, daemon: DaemonProcess) -> None:
    await page.goto(daemon.first_link)
    await page.locator('[name="login"]').fill("anna")
    await page.locator('[name="password"]').fill("верный конь батарея")
    await page.locator("button.primary").click()
    await page.wait_for_url("**/enterprises")


async def _open(page: Any, base: str, name: str, path: str) -> None:
    """Goes there and waits until what comes later has come."""
    await page.goto(base + path)
    if name == "call":
        await page.locator("#rows tr:has(.rec) a.over").first.click()
        await page.locator(".timeline").wait_for()
    if name == "ticket":
        await page.locator("#rows a.over").first.click()
        await page.locator(".messages").wait_for()
    if name == "bitrix24":
        await page.locator("#managers table").wait_for()
        await page.locator("#lines table").wait_for()
    if name == "live":
        await page.locator(".live-call .tickets a").first.wait_for()
        await page.locator('[data-lane="talking"] .live-call').nth(1).wait_for()
    if name == "integration":
        await page.locator("#managers table").wait_for()
    if name == "reports":
        await page.locator(".uplot").first.wait_for()
    if name == "overview":
        await page.wait_for_timeout(500)


async def _webp(page: Any, path: Path) -> None:
    if path.stem.startswith("integration"):
        await page.locator("#managers").scroll_into_view_if_needed()
    session = await page.context.new_cdp_session(page)
    shot = await session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    path.write_bytes(base64.b64decode(shot["data"]))
    await session.detach()


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m lab.screenshots", description=__doc__)
    options.add_argument("directory", type=Path, nargs="?", default=None)
    options.add_argument("--docs", action="store_true", help="only the README's")
    options.add_argument("--only", default="", help="names of pages, parted by commas")
    chosen = options.parse_args()
    where, only = chosen.directory or (DOCS if chosen.docs else REPOSITORY / "build/screenshots"), frozenset(filter(None, chosen.only.split(",")))
    asyncio.run(take(where, docs=chosen.docs, only=only))
