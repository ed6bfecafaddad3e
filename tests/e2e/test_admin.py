"""The admin from outside: the way in, cookies, forged requests, and every route with every role and another enterprise's ids."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from admin_http.app import ROUTES
from admin_http.pages.registry import PAGES
from daemon.model.person import Role
from daemon.store.pool import Database
from lab.office import free_port
from lab.patient import EVERYTHING
from lab.run import DaemonProcess, short_directory
from tests.e2e.test_api import is_problem

OURS, THEIRS = "0367", "0400"
PASSWORD = "верный конь батарея"
PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.9", "X-Forwarded-Host": "admin.example.com"}
PATHS = {"n": THEIRS, "crm": "retailcrm", "kind": "users", "id": "1", "job": "00000000-0000-4000-8000-000000000000", "name": "main", "token": "x" * 43}


@dataclass
class Admin:
    """One daemon for the whole file, with a person of every role."""

    daemon: DaemonProcess
    logins: dict[str, str]

    def browser(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{self.daemon.http}", trust_env=False, timeout=60, headers=headers)

    @asynccontextmanager
    async def entered(self, login: str) -> AsyncIterator[httpx.AsyncClient]:
        """A browser in which this person is logged in; sends the CSRF token with everything."""
        async with self.browser() as browser:
            answer = await browser.post("/login", data={"login": login, "password": PASSWORD})
            assert answer.status_code == 303, answer.text
            browser.headers["X-CSRF-Token"] = await token_of(browser)
            yield browser

    async def command(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "daemon", *arguments, env=self.daemon.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, err.decode()
        return out.decode().strip()


async def token_of(browser: httpx.AsyncClient) -> str:
    """The CSRF token that pages of this session carry."""
    found = re.search(r'name="csrf" value="(\w+)"', (await browser.get("/account")).text)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def admin() -> Any:
    daemon = DaemonProcess(short_directory("vochid-e2e-"), patience=EVERYTHING)
    house = Admin(daemon, {})
    loop = asyncio.new_event_loop()
    loop.run_until_complete(daemon.start())
    try:
        loop.run_until_complete(_settle(house))
        yield house
    finally:
        loop.run_until_complete(daemon.stop())
        loop.close()


async def _settle(house: Admin) -> None:
    async with house.browser() as stranger:
        page = await stranger.get("/login")
        assert "vochid user add" in page.text  # nobody can log in yet, and the fields are there
        assert 'name="login"' in page.text
        assert 'name="password"' in page.text
    link = house.daemon.first_link
    assert link.startswith(f"http://{house.daemon.http}/setup/")
    async with house.browser() as first:
        assert (await first.post(link, data={"login": "root", "password": PASSWORD})).status_code == 303
        assert (await first.get(link)).status_code == 404
    house.logins[Role.SUPER] = "root"
    for number in (OURS, THEIRS):
        settings = {"domain": "http://127.0.0.1:9", "api_key": "a-secret-key-1234"}
        await house.daemon.put(
            {"number": number, "name": f"Июнь {number}", "pbxs": [{"name": "main", "host": "127.0.0.1"}], "integrations": {"retailcrm": settings}}
        )
    for role in (Role.ADMIN, Role.VIEWER):
        link = await house.command("user", "add", f"{role}-of-ours", "--enterprise", OURS, "--role", role)
        async with house.browser() as browser:
            assert (await browser.post(link, data={"password": PASSWORD})).status_code == 303
        house.logins[role] = f"{role}-of-ours"


async def test_strangers_are_led_to_the_login_and_see_no_page(admin: Admin) -> None:
    async with admin.browser() as stranger:
        assert (await stranger.get("/")).headers["location"] == "/login"
        for page in PAGES:
            if not page.is_open and page.method == "GET":
                path = page.path.format(**PATHS)
                answer = await stranger.get(path)
                assert answer.status_code in (303, 401), path
                assert page.needed is Role.CABINET or answer.headers["location"].startswith("/login"), path


@pytest.mark.parametrize("role", [Role.ADMIN, Role.VIEWER])
async def test_another_enterprises_pages_and_routes_do_not_exist_for_any_role(admin: Admin, role: Role) -> None:
    async with admin.entered(admin.logins[role]) as browser:
        for route in ROUTES:
            for path in route.paths:
                if "{n}" in path:
                    answer = await browser.request(route.method, path.format(**PATHS), json={})
                    is_problem(answer, 404)
                    assert "Июнь" not in answer.text
        for page in PAGES:
            if "{n}" in page.path:
                answer = await browser.request(page.method, page.path.format(**PATHS), data={"name": "x"} if page.method == "POST" else None)
                assert answer.status_code == 404, page.path
                assert "Июнь 0400" not in answer.text


@pytest.mark.parametrize("role", [Role.ADMIN, Role.VIEWER, Role.SUPER])
async def test_every_route_opens_for_the_roles_it_names_and_for_no_other(admin: Admin, role: Role) -> None:
    async with admin.entered(admin.logins[role]) as browser:
        ours = {**PATHS, "n": OURS, "id": "999999"}
        for route in (r for r in ROUTES if not r.open and not (role.covers(r.needed) and r.method != "GET") and not r.path.endswith("/live")):
            answer = await browser.request(route.method, route.paths[0].format(**ours), json={})
            assert (answer.status_code == 403) is not role.covers(route.needed), (route.path, answer.status_code)
        for page in (p for p in PAGES if not p.is_open and not (role.covers(p.needed) and p.method != "GET")):
            answer = await browser.request(page.method, page.path.format(**ours), data={} if page.method == "POST" else None)
            if page.needed is Role.CABINET:
                assert answer.status_code == 401, page.path
            else:
                assert (answer.status_code == 403) is not role.covers(page.needed), (page.path, answer.status_code)


async def test_an_admin_may_not_change_what_is_the_operators(admin: Admin) -> None:
    async with admin.entered(admin.logins[Role.ADMIN]) as browser:
        shown = (await browser.get(f"/api/enterprises/{OURS}")).json()
        for change in (
            {"pbxs": []},
            {"dial_rules": {"per_day": 9}},
            {"pbxs": [{**shown["pbxs"][0], "trunks": ["SIP/x"]}]},
            {"pbxs": [{**shown["pbxs"][0], "fastagi_peers": []}]},
        ):
            is_problem(await browser.put(f"/api/enterprises/{OURS}", json={**shown, **change}), 403, "forbidden")
        assert (await browser.put(f"/api/enterprises/{OURS}", json={**shown, "country": "PL"})).status_code == 200
        is_problem(await browser.delete(f"/api/enterprises/{OURS}"), 403, "forbidden")


async def test_forged_requests_do_nothing(admin: Admin) -> None:
    async with admin.entered(admin.logins[Role.ADMIN]) as browser:
        token = browser.headers.pop("X-CSRF-Token")
        form = {"name": "Подменено", "timezone": "Europe/Minsk", "country": "BY"}
        for headers, data in (
            ({}, form), ({"X-CSRF-Token": "0" * 40}, form), ({"X-CSRF-Token": token, "Sec-Fetch-Site": "cross-site"}, form),
            ({"Origin": "http://evil.example"}, {**form, "csrf": token}),
        ):  # fmt: skip
            assert (await browser.post(f"/e/{OURS}/settings", data=data, headers=headers)).status_code == 403
        is_problem(await browser.post(f"/api/enterprises/{OURS}/tokens", json={"name": "x"}), 403, "csrf")
        assert "Подменено" not in (await browser.get(f"/e/{OURS}")).text
        same = {"Origin": f"http://{admin.daemon.http}", "Sec-Fetch-Site": "same-origin"}
        assert (await browser.post(f"/e/{OURS}/settings", data={**form, "name": "Июнь 0367", "csrf": token}, headers=same)).status_code == 303
        assert (await browser.post("/login", data={"login": "root", "password": PASSWORD}, headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403


async def test_cookies_are_bound_to_the_host_over_https_and_refused_over_http_elsewhere(admin: Admin) -> None:
    async with admin.browser(**PROXIED) as browser:
        answer = await browser.post("/login", data={"login": "root", "password": PASSWORD})
        assert answer.status_code == 303
        for cookie in answer.headers.get_list("set-cookie"):
            assert cookie.startswith("__Host-vochid")
            assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}
            assert "domain" not in cookie.lower()
    async with admin.browser(Host="admin.example.com") as browser:
        page = await browser.get("/login")
        assert "https" in page.text
        assert "VOCHID_TRUSTED_PROXIES" in page.text
        refused = await browser.post("/login", data={"login": "root", "password": PASSWORD})
        assert refused.status_code == 400
        assert "set-cookie" not in refused.headers


async def test_a_login_makes_a_new_session_and_the_old_one_is_gone(admin: Admin) -> None:
    async with admin.entered("root") as browser:
        before = browser.cookies["vochid"]
        await browser.post("/login", data={"login": "root", "password": PASSWORD})
        assert browser.cookies["vochid"] != before
        async with admin.browser(Cookie=f"vochid={before}") as thief:
            assert (await thief.get("/enterprises")).status_code == 303
        browser.headers["X-CSRF-Token"] = await token_of(browser)
        assert (await browser.post("/logout")).status_code == 303
        assert (await browser.get("/enterprises")).status_code == 303


async def test_pages_carry_the_headers_that_keep_scripts_and_frames_out(admin: Admin) -> None:
    async with admin.browser() as stranger:
        headers = (await stranger.get("/login")).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert (headers["referrer-policy"], headers["cache-control"], headers["x-content-type-options"]) == ("no-referrer", "no-store", "nosniff")
        assert (await stranger.get("/static/../app.py")).status_code == 404
        assert (await stranger.get("/static/%2e%2e/app.py")).status_code == 404
        assert (await stranger.get("/login?next=//evil.example")).text.count("evil.example") == 0


async def test_people_are_added_shown_disabled_and_only_by_who_may(admin: Admin) -> None:
    async with admin.entered(admin.logins[Role.ADMIN]) as browser:
        added = await browser.post("/people", data={"login": "vera", "name": "Вера <b>", "role": "viewer"})
        link = re.search(r"http://[^<\"]+/setup/[\w-]+", added.text)
        assert link is not None
        assert "Вера &lt;b&gt;" in added.text
        listed = (await browser.get("/api/users")).json()["items"]
        assert {one["login"] for one in listed} == {"admin-of-ours", "viewer-of-ours", "vera"}
        assert all(one["enterprise"] == OURS and "password" not in one for one in listed)
        for form in (
            {"login": "x", "role": "super-admin"},
            {"login": "x", "role": "cabinet"},
            {"login": "", "role": "viewer"},
            {"login": "vera", "role": "viewer"},
        ):
            assert (await browser.post("/people", data=form)).status_code in (400, 403), form
        vera = re.search(r"/people/(\d+)/link", added.text)
        assert vera is not None
        for other in range(1, 5):  # people of no or another enterprise are as if they were not
            if (path := f"/people/{other}/disabled") != f"/people/{vera[1]}/disabled" and f"/people/{other}/link" not in added.text:
                assert (await browser.post(path)).status_code in (400, 404, 409)
        assert (await browser.post(f"/people/{vera[1]}/disabled")).status_code == 303
        assert (await browser.get(link[0])).status_code == 404
    assert "vera\tВера <b>\tviewer\t0367\tdisabled" in await admin.command("user", "list")
    assert (await admin.command("user", "enable", "vera")) == "vera: enabled"
    relink = await admin.command("user", "link", "vera")
    async with admin.browser() as browser:
        assert (await browser.get(relink)).status_code == 200
    await admin.command("user", "disable", "vera")


async def test_the_audit_shows_changes_of_pages_and_api_without_secrets(admin: Admin) -> None:
    async with admin.entered(admin.logins[Role.ADMIN]) as browser:
        crm = f"/api/enterprises/{OURS}/integrations/retailcrm"
        assert (await browser.put(crm, json={"domain": "http://127.0.0.1:9", "api_key": "another-secret-5678", "mode": "observe"})).status_code == 200
        page = (await browser.get("/audit")).text
        assert "live → observe" in page
        assert "<code>api_key</code> ***" in page
        assert "5678" not in page
        assert "another-secret" not in page
        assert "Июнь 0400" not in page


@pytest.fixture
async def database(admin: Admin) -> AsyncIterator[Database]:
    from daemon.settings import Settings
    from daemon.store.embedded import EmbeddedPostgres

    server = EmbeddedPostgres(Settings(data_dir=admin.daemon.data_dir).data_dir)
    await server.start(own=False)
    db = await Database.open(server.url)
    yield db
    await db.close()
    await server.stop()


async def test_a_cabinet_link_opens_one_page_and_nothing_else(admin: Admin, database: Database) -> None:
    import time

    from daemon.security.cabinet import CabinetLinks
    from daemon.security.vault import Vault, load_keys
    from daemon.store.inbound_tokens import InboundTokens

    vault = Vault(load_keys(None, None, admin.daemon.data_dir))
    links = CabinetLinks(vault, InboundTokens(database, vault), time.time)
    token = await links.issue(OURS)
    query = {"enterprise_number": OURS, "token": token}
    async with admin.entered("root") as browser:
        person = browser.cookies["vochid"]
        opened = await browser.get("/retailcrm-admin/", params=query)
        assert (opened.status_code, opened.headers["location"]) == (303, "/cabinet")
        assert browser.cookies["vochid"] == person
        page = await browser.get("/cabinet")
        assert "<title>Июнь 0367 RetailCRM</title>" in page.text
        assert "Удалить интеграцию" in page.text
        assert token not in page.text
    async with admin.browser() as browser:
        posted = await browser.post("/retailcrm-admin/", data=query, headers={"Origin": "https://example.retailcrm.ru", "Sec-Fetch-Site": "cross-site"})
        assert posted.status_code == 303
        assert set(browser.cookies) == {"vochid_cabinet"}
        assert (await browser.get("/cabinet")).status_code == 200
        for page in PAGES:
            if page.needed is not Role.CABINET and not page.is_open:
                answer = await browser.request(page.method, page.path.format(**{**PATHS, "n": OURS}))
                assert answer.status_code in (303, 401, 403), page.path
        for route in ROUTES:
            path = route.paths[0].format(**{**PATHS, "n": OURS})
            is_problem(await browser.request(route.method, path), 401)
            is_problem(await browser.request(route.method, path, headers={"Authorization": f"Bearer {token}"}), 401)
        assert (await browser.post("/cabinet", data={"domain": "x"})).status_code == 403  # no CSRF token
    async with admin.browser() as browser:
        for wrong in ({**query, "enterprise_number": THEIRS}, {"token": token[:-3]}, {}, {"token": "x" * 5_000}):
            assert (await browser.get("/retailcrm-admin/", params=wrong)).status_code == 403
        await links.revoke(OURS)
        assert (await browser.get("/retailcrm-admin/", params=query)).status_code == 403
        assert not browser.cookies
    assert token not in admin.daemon.log.read_text()


@pytest.fixture
async def with_rules(admin: Admin) -> AsyncIterator[None]:
    """A portal and a desk beside RetailCRM, for as long as a test takes."""
    crms = {
        "bitrix24": {"webhook_url": "http://127.0.0.1:9/rest/1/abc123/"},
        "tickets": {"role": "tma", "remote_url": "http://127.0.0.1:9", "deploy_token": "a-token-1234", "rules": [{"do": "ticket", "known": True}]},
    }  # fmt: skip
    async with admin.daemon.client() as api:
        for crm, settings in crms.items():
            assert (await api.put(f"/api/enterprises/{OURS}/integrations/{crm}", json=settings)).status_code < 300
        yield
        for crm in crms:
            await api.delete(f"/api/enterprises/{OURS}/integrations/{crm}")


async def test_rules_offer_what_the_crm_can_make_and_looks_at(admin: Admin, with_rules: None) -> None:
    def choices(page: str, field: str) -> list[str]:
        found = re.search(rf'<select id="f-0-{field}".*?</select>', page, re.DOTALL)
        return re.findall(r'<option value="([^"]+)"', found[0]) if found else []

    async with admin.entered(admin.logins[Role.ADMIN]) as browser:
        pages = {crm: (await browser.post(f"/e/{OURS}/integrations/{crm}/rules", data={"action": "add"})).text for crm in ("bitrix24", "tickets")}
        assert choices(pages["bitrix24"], "do") == ["lead", "contact", "task", "nothing"]
        assert choices(pages["bitrix24"], "known") == ["true", "false"]
        assert choices(pages["tickets"], "do") == ["ticket", "nothing"]
        assert choices(pages["tickets"], "known") == choices(pages["tickets"], "responsible") == []
        assert 'name="rules.0.deadline"' not in pages["tickets"]
        # What was stored and means nothing there shows nevertheless: saving must not lose it silently.
        assert choices((await browser.get(f"/e/{OURS}/integrations/tickets/rules")).text, "known") == ["true", "false"]
        # Nothing was ever told to either of them: their deliveries are shown nevertheless.
        deliveries = await browser.get(f"/e/{OURS}/deliveries")
        assert deliveries.status_code == 200
        assert "Bitrix24" in deliveries.text
        # RetailCRM follows no rules: none are offered.
        assert (await browser.get(f"/e/{OURS}/integrations/retailcrm/rules")).status_code == 404
        assert "integrations/retailcrm/rules" not in (await browser.get(f"/e/{OURS}/integrations/retailcrm")).text


async def test_rules_are_edited_step_by_step_and_an_error_stands_at_its_rule(admin: Admin, with_rules: None) -> None:
    path = f"/e/{OURS}/integrations/bitrix24/rules"

    async def stored() -> list[dict[str, Any]]:
        async with admin.daemon.client() as api:
            return (await api.get(f"/api/enterprises/{OURS}")).json()["integrations"]["bitrix24"]["rules"]  # type: ignore[no-any-return]

    first = {"rules.0.line": "+375171112233", "rules.0.answered": "false", "rules.0.do": "task", "rules.0.responsible": "150", "rules.0.deadline": "15"}
    second = {"rules.1.direction": "out", "rules.1.do": "nothing", "rules.1.responsible": "entity"}
    async with admin.entered(admin.logins[Role.ADMIN]) as browser:
        assert "rules.0.do" not in (await browser.get(path)).text
        added = await browser.post(path, data={**first, "action": "add"})
        assert added.text.count('aria-label="Правило 2"') == 1
        assert await stored() == []  # a step stores nothing
        moved = (await browser.post(path, data={**first, **second, "action": "up.1"})).text
        assert moved.index('value="entity" selected') < moved.index('value="150" selected')
        assert (await browser.post(path, data={**first, **second, "action": "remove.0"})).text.count('class="card rule') == 1
        wrong = await browser.post(path, data={**first, **second, "rules.1.do": "dance", "action": "save"})
        assert wrong.status_code == 400
        assert re.search(r'id="f-1-do"[^>]*aria-invalid', wrong.text)
        assert (await browser.post(path, data={**first, "rules.0.deadline": "soon"})).status_code == 400
        assert (await browser.post(path, data={**first, "action": "burn"})).status_code == 400
        assert (await browser.post(path, data={**first, **second, "action": "save"})).status_code == 303
        assert (await browser.get(f"/e/{OURS}/integrations/amocrm/rules")).status_code == 404
    rules = await stored()
    assert [(rule["line"], rule["answered"], rule["do"], rule["responsible"], rule["task_deadline_s"]) for rule in rules] == [
        ("+375171112233", False, "task", "150", 900), (None, None, "nothing", "entity", None),
    ]  # fmt: skip
    async with admin.entered(admin.logins[Role.VIEWER]) as browser:
        assert '<fieldset class="bare" disabled>' in (await browser.get(path)).text
        assert (await browser.post(path, data={"action": "save"})).status_code == 403


async def test_what_goes_onto_a_pbx_is_shown_without_its_secret(admin: Admin) -> None:
    async with admin.entered(admin.logins[Role.SUPER]) as browser:
        await admin.daemon.put({
            "number": OURS, "name": f"Июнь {OURS}", "lines": [{"number": "+375171112233"}],
            "pbxs": [{"name": "main", "host": "127.0.0.1", "username": "vochid-main", "secret": "very-hidden-1234"}],
            "integrations": {"retailcrm": {"domain": "http://127.0.0.1:9", "api_key": "a-secret-key-1234"}},
        })  # fmt: skip
        page = (await browser.get(f"/e/{OURS}/settings/pbx/main")).text
        assert "[vochid-main]" in page
        assert "exten =&gt; +375171112233,1,Gosub(vochid-record,s,1)" in page
        assert 'data-copy-of="snippet-1"' in page
        assert "very-hidden" not in page
        assert 'id="snippets"' not in (await browser.get(f"/e/{OURS}/settings/pbx/~new")).text


async def test_a_person_may_ask_who_gets_a_number_so_often_and_no_more(admin: Admin) -> None:
    async with admin.entered(admin.logins[Role.VIEWER]) as viewer, admin.entered(admin.logins[Role.ADMIN]) as other:
        said: list[httpx.Response] = []
        while not said or 'class="result"' in said[-1].text:  # ten at once, then one every six seconds
            said.append(await viewer.post(f"/e/{OURS}/redirect/probe", data={"phone": "+375291112233"}, headers={"HX-Request": "true"}))
            assert len(said) < 100
        assert len(said) > 10
        assert "HX-Trigger" in said[-1].headers  # a toast says to wait
        body = {"enterprise_number": OURS, "phone": "+375291112233"}
        assert (await viewer.post("/api/smart-redirect", json=body)).status_code in (403, 429)
        assert 'class="result"' in (await other.post(f"/e/{OURS}/redirect/probe", data={"phone": "1"}, headers={"HX-Request": "true"})).text
    async with admin.daemon.client() as program:  # a PBX asks for every call
        assert {(await program.post("/api/smart-redirect", json=body)).status_code for _ in range(15)} == {200}


async def test_enterprises_come_in_pages_and_those_to_look_after_apart(admin: Admin) -> None:
    pbx = {"name": "main", "host": "127.0.0.1", "port": free_port(), "username": "vochid-main", "secret": "very-hidden-1234"}  # nothing listens there
    crm = {"domain": "http://127.0.0.1:9", "api_key": "a-secret-key-1234"}
    await admin.daemon.put({"number": OURS, "name": f"Июнь {OURS}", "pbxs": [pbx], "integrations": {"retailcrm": crm}})
    await admin.daemon.put({"number": "9000", "name": "Ромашка", "pbxs": []})
    async with admin.entered(admin.logins[Role.SUPER]) as browser:
        for page in ("1", "2", "99999999", "0", "x", "²", "-1"):
            assert (await browser.get("/enterprises", params={"page": page, "q": "ромаш"})).text.count("<strong>Ромашка") == 1
        async with asyncio.timeout(30):
            while f">{OURS}</a>" not in (trouble := (await browser.get("/enterprises?show=trouble")).text):
                await asyncio.sleep(0.2)
        assert "Ромашка" not in trouble
        assert (await browser.post(f"/e/{OURS}/status/refresh")).status_code == 303
