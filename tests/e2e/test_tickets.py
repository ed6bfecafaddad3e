"""The ticket desk from outside: both roles, what comes in and what goes out, on a running daemon."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from aiohttp import web

from lab.crm.tickets import TicketSandbox
from lab.office import free_port
from lab.patient import EVERYTHING
from lab.run import DaemonProcess, short_directory
from tests.e2e.test_api import is_problem

TOKEN = "deploy-token-of-the-lab"
CRM, TMA = "0367", "0400"


class Desks:
    """One daemon with two enterprises: in the one vochid is the crm, in the other one the tma; a sandbox plays the other side of each."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.tma, self.crm = TicketSandbox("tma", TOKEN), TicketSandbox("crm", TOKEN + "-2")

    def settings(self, role: str, **more: Any) -> dict[str, Any]:
        other = self.tma if role == "crm" else self.crm
        return {"role": role, "remote_url": other.url, "deploy_token": other.token, **more}

    async def set_up(self) -> None:
        await self.tma.start()
        await self.crm.start()
        for number, role in ((CRM, "crm"), (TMA, "tma")):
            await self.daemon.put(
                {"number": number, "name": role, "country": "BY", "pbxs": [], "internal_phones": [{"number": "150", "owner": "Анна"}],
                 "integrations": {"tickets": self.settings(role)}}
            )  # fmt: skip

    def outside(self, token: str = TOKEN) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{self.daemon.http}", headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def daemon() -> Iterator[DaemonProcess]:
    """One for all tests of this file: they leave no enterprise behind."""
    process, loop = DaemonProcess(short_directory("vochid-e2e-"), patience=EVERYTHING), asyncio.new_event_loop()
    loop.run_until_complete(process.start())
    yield process
    loop.run_until_complete(process.stop())
    loop.close()


@pytest.fixture
async def desks(daemon: DaemonProcess) -> AsyncIterator[Desks]:
    built = Desks(daemon)
    try:
        await built.set_up()
        yield built
    finally:
        async with daemon.client() as api:
            for number in (CRM, TMA):
                await api.delete(f"/api/enterprises/{number}?purge=true")
        await built.tma.stop()
        await built.crm.stop()


def a_ticket(**more: Any) -> dict[str, Any]:
    return {
        "external_ticket_id": str(uuid.uuid4()), "subject": "Не приходит код", "message": "Здравствуйте!", "attachments": [],
        "external_url": "https://tma.example/t/1", "project": "tma", **more,
    }  # fmt: skip


def a_message(ticket: str, **more: Any) -> dict[str, Any]:
    return {"external_ticket_id": ticket, "message": "Ещё раз", "attachments": [], "sender": "tma", "external_message_id": str(uuid.uuid4()), **more}


async def test_what_comes_in_is_kept_once_and_what_makes_no_sense_is_refused(desks: Desks) -> None:
    async with desks.outside() as out, desks.daemon.client() as api:
        ticket = a_ticket()
        # Eight at the same moment: one is made, the others get it.
        answers = await asyncio.gather(*(out.post("/api/integration/tickets", json=ticket) for _ in range(8)))
        assert sorted(a.status_code for a in answers) == [200] * 7 + [201]
        assert len({a.json()["id"] for a in answers}) == 1
        assert answers[0].json()["external_ticket_id"] == ticket["external_ticket_id"]
        assert {"id", "external_ticket_id", "subject", "status"} <= set(answers[0].json())
        message = a_message(ticket["external_ticket_id"])
        answers = await asyncio.gather(*(out.post("/api/integration/messages", json=message) for _ in range(8)))
        assert sorted(a.status_code for a in answers) == [200] * 7 + [201]
        assert {a.json()["external_message_id"] for a in answers} == {message["external_message_id"]}
        # A repeated id changes nothing.
        changed = await out.post("/api/integration/tickets", json={**ticket, "subject": "другое", "message": "другое"})
        assert (changed.status_code, changed.json()["subject"]) == (200, ticket["subject"])
        changed = await out.post("/api/integration/messages", json={**message, "message": "другое"})
        assert (changed.status_code, changed.json()["message"]) == (200, message["message"])
        ours = f"/api/enterprises/{CRM}/tickets"
        kept = (await api.get(f"{ours}/{changed.json()['ticket_id']}")).json()
        assert [m["message"] for m in kept["messages"]] == [ticket["message"], message["message"]]

        for path, body, code in (
            ("messages", a_message(str(uuid.uuid4())), "unknown_ticket"),
            ("status", {"external_ticket_id": str(uuid.uuid4()), "status": "closed"}, "unknown_ticket"),
            ("messages", a_message(ticket["external_ticket_id"], sender="crm", external_message_id=7), "wrong_role"),
        ):
            is_problem(await out.post(f"/api/integration/{path}", json=body), 404, code)
        bad: list[tuple[str, dict[str, Any], str]] = [
            ("tickets", a_ticket(external_ticket_id="12"), "external_ticket_id"),
            ("tickets", a_ticket(external_ticket_id=12), "external_ticket_id"),
            ("tickets", a_ticket(subject="x" * 501), "subject"),
            ("tickets", a_ticket(subject="  "), "subject"),
            ("tickets", a_ticket(message="x" * 20_001), "message"),
            ("tickets", a_ticket(message=["x"]), "message"),
            ("tickets", a_ticket(message="a\0b"), "message"),
            ("tickets", a_ticket(external_url="javascript:alert(1)"), "external_url"),
            ("tickets", a_ticket(attachments={}), "attachments"),
            ("tickets", a_ticket(attachments=[{"name": "a", "url": "https://a.example/a", "mime": "image/png", "size": -1}]), "attachments.0.size"),
            ("tickets", a_ticket(attachments=[{"name": "a", "url": "https://a.example/a", "mime": "image/png", "size": 10**9}]), "attachments.0.size"),
            ("tickets", a_ticket(attachments=[{"name": "a", "url": "https://a.example/a", "mime": "text/html", "size": 1}]), "attachments.0.mime"),
            ("tickets", a_ticket(attachments=[{"name": "a", "url": "file:///etc/passwd", "mime": "image/png", "size": 1}]), "attachments.0.url"),
            ("messages", a_message(ticket["external_ticket_id"], external_message_id="7"), "external_message_id"),
            ("messages", a_message(ticket["external_ticket_id"], external_message_id=7), "external_message_id"),
            ("messages", a_message(ticket["external_ticket_id"], sender="local"), "sender"),
            ("messages", a_message(ticket["external_ticket_id"], sender=None), "sender"),
            ("status", {"external_ticket_id": ticket["external_ticket_id"], "status": "done"}, "status"),
            ("status", {"external_ticket_id": ticket["external_ticket_id"], "status": "closed", "sequence": "1"}, "sequence"),
        ]
        for path, body, field in bad:
            assert is_problem(await out.post(f"/api/integration/{path}", json=body), 400)["field"] == field, body
        for content in (b"", b"{", b"[]", b'"x"', b"\xff", json.dumps(a_ticket(subject="\ud800")).encode()):
            is_problem(await out.post("/api/integration/tickets", content=content, headers={"Content-Type": "application/json"}), 400)
        is_problem(await out.post("/api/integration/tickets", content=b"x" * (3 * 1024 * 1024)), 413)
        assert len((await api.get(ours)).json()["items"]) == 1

    async with desks.outside(TOKEN + "-2") as out:
        is_problem(await out.post("/api/integration/tickets", json=a_ticket()), 404, "wrong_role")
        # Another enterprise's ticket does not exist.
        crm_message = a_message(ticket["external_ticket_id"], sender="crm", external_message_id=1)
        is_problem(await out.post("/api/integration/messages", json=crm_message), 404, "unknown_ticket")
    for token in ("nonsense", "x", TOKEN + "x"):
        async with desks.outside(token) as out:
            for path in ("tickets", "messages", "status"):
                is_problem(await out.post(f"/api/integration/{path}", json={}), 401, "unauthorized")


async def test_statuses_legacy_paths_and_the_tokens_overlap(desks: Desks) -> None:
    async with desks.outside() as out, desks.daemon.client() as api:
        ticket = a_ticket()
        key = ticket["external_ticket_id"]
        await out.post("/api/integration/tickets", json=ticket)

        async def put(status: str, **more: Any) -> str:
            answer = await out.post("/api/integration/status", json={"external_ticket_id": key, "status": status, **more})
            assert answer.status_code == 200, answer.text
            return str(answer.json()["status"])

        assert await put("in_progress") == "in_progress"
        assert await put("closed", sequence=10) == "closed"
        assert await put("open", sequence=9) == "closed"  # late
        assert await put("closed", sequence=10) == "closed"
        assert await put("open", sequence=11) == "open"

        legacy = {"ticket_id": str(uuid.uuid4()), "theme": "Тема", "message": "текст", "attachments": ["https://files.example/%D1%81%D0%BA%D0%B0%D0%BD.png"],
                  "project": "tma", "external_url": ""}  # fmt: skip
        made = [await out.post("/api/v1/support/ticket", json=legacy) for _ in range(2)]
        assert [a.status_code for a in made] == [201, 200]
        assert (made[0].json()["subject"], made[0].json()["external_ticket_id"]) == ("Тема", legacy["ticket_id"])
        said = {"ticket_id": legacy["ticket_id"], "message": "и ещё", "attachments": [], "project": "tma"}
        told = [await out.post("/api/support/webhook/message", json=said) for _ in range(2)]
        assert [a.status_code for a in told] == [201, 200]
        assert told[0].json()["sender"] == "tma"
        assert is_problem(await out.post("/api/v1/support/ticket", json={**legacy, "ticket_id": 5}), 400)["field"] == "ticket_id"
        callers = (await api.get(f"/api/enterprises/{CRM}/tickets/legacy")).json()["items"]
        assert {c["path"]: c["count"] for c in callers} == {"/api/v1/support/ticket": 3, "/api/support/webhook/message": 2}
        assert all(c["caller"].startswith("127.0.0.1") for c in callers)

        settings = f"/api/enterprises/{CRM}/integrations/tickets"
        shown = (await api.get(settings)).json()
        assert (await api.put(settings, json={**shown, "legacy": False, "deploy_token": "another-token-1"})).status_code == 200
        for token in ("another-token-1", TOKEN):  # the former one is taken until it is cleared
            async with desks.outside(token) as either:
                assert (await either.post("/api/integration/tickets", json=ticket)).status_code == 200
                is_problem(await either.post("/api/v1/support/ticket", json=legacy), 404, "legacy_off")
        shown = (await api.get(settings)).json()
        assert shown["previous_deploy_token"]["set"] is True
        assert TOKEN not in json.dumps(shown)
        assert (await api.put(settings, json={**shown, "previous_deploy_token": None})).status_code == 200
        is_problem(await out.post("/api/integration/tickets", json=ticket), 401)
        # Nobody else may have the same token.
        is_problem(
            await api.put(f"/api/enterprises/{TMA}/integrations/tickets", json=desks.settings("tma", deploy_token="another-token-1")), 400, "token_taken"
        )
        assert (await api.delete(settings)).status_code == 204
        async with desks.outside("another-token-1") as gone:
            is_problem(await gone.post("/api/integration/tickets", json=ticket), 401)


async def eventually(condition: Any, timeout_s: float = 60.0) -> Any:
    """What `condition` gives once it is true."""
    async with asyncio.timeout(timeout_s):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


async def test_what_is_written_here_arrives_in_order_and_both_sides_keep_the_others_ids(desks: Desks) -> None:
    ours = f"/api/enterprises/{TMA}/tickets"
    async with desks.daemon.client() as api:
        desks.crm.switches.id_at = "data.id"
        opened = {"subject": "Код", "message": "Не приходит", "phone": "8 029 625 40 70", "agent": "150", "idempotency_key": "a"}
        made = [await api.post(ours, json=opened) for _ in range(2)]
        assert [a.status_code for a in made] == [201, 200]
        ticket = made[0].json()
        assert ticket["customer_phone"] == "+375296254070"
        one, key = f"{ours}/{ticket['id']}", ticket["external_ticket_id"]
        for n in range(5):
            assert (await api.post(f"{one}/messages", json={"message": f"ещё {n}", "idempotency_key": str(n)})).status_code == 201
        assert (await api.post(f"{one}/messages", json={"message": "снова", "idempotency_key": "4"})).status_code == 200
        assert (await api.put(f"{one}/status", json={"status": "in_progress"})).json()["status"] == "in_progress"
        assert (await api.put(f"{one}/status", json={"status": "closed", "agent": "150"})).json()["status"] == "closed"

        async def arrived() -> bool:
            return key in desks.crm.tickets and desks.crm.tickets[key].status == "closed"

        await eventually(arrived)
        kept = desks.crm.tickets[key]
        assert [m["message"] for m in kept.messages] == ["Не приходит", *(f"ещё {n}" for n in range(5))]

        async def all_delivered() -> dict[str, Any] | None:
            shown: dict[str, Any] = (await api.get(one)).json()
            states = {m["delivery"]["state"] for m in shown["messages"][1:]} | {shown["status_delivery"]["state"]}
            return shown if states == {"delivered"} else None

        shown = await eventually(all_delivered)
        assert shown["remote_id"] == str(kept.number)
        assert all(m["remote_id"] for m in shown["messages"][1:])
        assert [m["external_message_id"] for m in shown["messages"]] == [m["external_message_id"] for m in kept.messages]
        # The crm answers with its own numbers.
        status, body = await desks.crm.say(f"http://{desks.daemon.http}", "messages", a_message(key, sender="crm", external_message_id=77, message="Смотрим"))
        assert (status, body["external_message_id"]) == (201, 77)
        assert (await desks.crm.say(f"http://{desks.daemon.http}", "status", {"external_ticket_id": key, "status": "open"}))[1]["status"] == "open"
        shown = (await api.get(one)).json()
        assert (shown["status"], shown["messages"][-1]["external_message_id"], shown["messages"][-1]["sender"]) == ("open", 77, "crm")

        found = {
            query: len((await api.get(f"{ours}?{query}")).json()["items"])
            for query in ("status=unclosed", "status=closed", "phone=%2B375296254070", "phone=80296254070", "q=код", "q=nothing", "limit=1")
        }
        assert found == {"status=unclosed": 1, "status=closed": 0, "phone=%2B375296254070": 1, "phone=80296254070": 1, "q=код": 1, "q=nothing": 0, "limit=1": 1}
        for method, path, body, status in (
            ("POST", ours, {"subject": "x"}, 400), ("POST", ours, {"subject": "x", "message": "y", "external_url": "javascript:x"}, 400),
             ("POST", ours, {"subject": "x", "message": "y", "theme": "z"}, 400), ("POST", ours, [], 400),
            ("POST", ours, {"subject": "x", "message": "y", "phone": "nobody"}, 400), ("POST", ours, {"subject": "x", "message": "y", "agent": "me"}, 400),
            ("POST", f"{one}/messages", {"message": ""}, 400), ("PUT", f"{one}/status", {"status": "done"}, 400), ("GET", f"{ours}/999", None, 404),
            ("POST", f"{ours}/999/messages", {"message": "x"}, 404), ("PUT", f"{ours}/x/status", {"status": "open"}, 404),
            ("GET", f"{ours}?status=x", None, 400),
            ("GET", f"{ours}?cursor=x", None, 400), ("GET", f"{ours}?call=x", None, 400),
        ):  # fmt: skip
            is_problem(await api.request(method, path, **({"json": body} if body is not None else {})), status)

        # A dead letter is seen on its message, and may be sent again.
        desks.crm.tickets.clear()
        lost = (await api.post(f"{one}/messages", json={"message": "в никуда"})).json()

        async def dead() -> dict[str, Any] | None:
            message: dict[str, Any] = (await api.get(one)).json()["messages"][-1]
            return message["delivery"] if message["id"] == lost["id"] and message["delivery"]["state"] == "dead" else None

        assert "no such ticket" in (await eventually(dead))["last_error"]
        desks.crm.tickets[key] = kept
        assert (await api.post(f"/api/enterprises/{TMA}/deliveries/{(await eventually(dead))['id']}/retry")).status_code == 200

        async def told() -> bool:
            return desks.crm.messages[-1] == "в никуда"

        await eventually(told)


async def test_as_crm_replies_are_numbered_and_only_tickets_that_the_tma_knows_are_told(desks: Desks) -> None:
    ours = f"/api/enterprises/{CRM}/tickets"
    async with desks.daemon.client() as api, desks.outside() as out:
        ticket = a_ticket()
        desks.tma.knows(ticket["external_ticket_id"])
        number = (await out.post("/api/integration/tickets", json=ticket)).json()["id"]
        await api.post(f"{ours}/{number}/messages", json={"message": "Смотрим"})
        await api.put(f"{ours}/{number}/status", json={"status": "closed"})

        async def closed() -> bool:
            return desks.tma.tickets[ticket["external_ticket_id"]].status == "closed"

        await eventually(closed)
        [told] = desks.tma.tickets[ticket["external_ticket_id"]].messages
        assert (told["message"], told["sender"], type(told["external_message_id"])) == ("Смотрим", "crm", int)
        own = (await api.post(ours, json={"subject": "Своё", "message": "заметка"})).json()
        await api.post(f"{ours}/{own['id']}/messages", json={"message": "и ещё"})
        await api.put(f"{ours}/{own['id']}/status", json={"status": "closed"})
        shown = (await api.get(f"{ours}/{own['id']}")).json()
        assert (shown["shared"], [m["delivery"] for m in shown["messages"]], shown["status_delivery"]) == (False, [None, None], None)

    # Another enterprise's desk is no desk of theirs.
    async with desks.daemon.client() as api:
        token = (await api.post(f"/api/enterprises/{TMA}/tokens", json={"name": "x"})).json()["token"]
    async with desks.outside(token) as theirs:
        for method, path in (("GET", f"{ours}/{number}"), ("POST", f"{ours}/{number}/messages"), ("PUT", f"{ours}/{number}/status"), ("GET", ours)):
            is_problem(await theirs.request(method, path, json={"message": "x", "status": "open"}), 404)
        is_problem(await theirs.get(f"/api/enterprises/{TMA}/tickets/{number}"), 404)


async def test_the_connection_test_tells_a_bad_token_from_a_bad_address_and_a_same_role(desks: Desks) -> None:
    async with desks.daemon.client() as api:
        test = f"/api/enterprises/{TMA}/integrations/tickets/test"
        assert (await api.post(test)).json()["ok"]
        for change, field in (({"deploy_token": "not-this-one"}, "deploy_token"), ({"remote_url": "http://127.0.0.1:9"}, "remote_url")):
            tried = (await api.post(test, json={**desks.settings("tma"), **change})).json()
            assert [c["field"] for c in tried["checks"] if not c["ok"]] == [field]
        desks.crm.switches.wrong_role = True
        assert [c["field"] for c in (await api.post(test)).json()["checks"] if not c["ok"]] == ["role"]
        assert not desks.crm.tickets


async def files() -> tuple[web.AppRunner, str]:
    """A host of files: good ones, one that is too long, one behind a redirect, one that is not there yet."""

    async def serve(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == "moved":
            raise web.HTTPFound("/good.png")
        if name == "later.png":
            return web.Response(status=503)
        return web.Response(body=b"x" * (11 * 1024 * 1024) if name == "long.png" else bytes(range(256)) * 4)

    application = web.Application()
    application.router.add_get("/{name}", serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, f"http://127.0.0.1:{port}"


async def test_attachments_are_fetched_through_the_guard_kept_and_served_by_signed_links(desks: Desks) -> None:
    runner, host = await files()
    wanted = {
        "good.png": ("stored", ""), "long.png": ("failed", "larger than"), "moved": ("waiting", "302"), "later.png": ("waiting", "503"),
        "private.png": ("failed", "not allowed"),
    }  # fmt: skip
    try:
        async with desks.outside() as out, desks.daemon.client() as api:
            ticket = a_ticket(
                attachments=[
                    {"name": name, "url": f"{'http://10.0.0.1' if name == 'private.png' else host}/{name}", "mime": "image/png", "size": 1024}
                    for name in wanted
                ]
            )
            number = (await out.post("/api/integration/tickets", json=ticket)).json()["id"]
            one = f"/api/enterprises/{CRM}/tickets/{number}"

            async def looked_at() -> list[dict[str, Any]] | None:
                found: list[dict[str, Any]] = (await api.get(one)).json()["messages"][0]["attachments"]
                return found if all(a["error"] or a["state"] == "stored" for a in found) else None

            found = {a["name"]: a for a in await eventually(looked_at)}
            for name, (state, reason) in wanted.items():
                assert found[name]["state"] == state, found[name]
                assert reason in (found[name]["error"] or "")

            # As tma we hand our own copy over, by a link that is made then.
            reply = {"message": "см.", "attachments": [{"name": "скан.png", "url": f"{host}/good.png", "mime": "image/png", "size": 1024}]}
            ours = f"/api/enterprises/{TMA}/tickets"
            sent = (await api.post(ours, json={"subject": "x", **reply})).json()

            async def handed() -> dict[str, Any] | None:
                kept = desks.crm.tickets.get(sent["external_ticket_id"])
                return kept.ticket["attachments"][0] if kept else None

            given = await eventually(handed)
            assert given["url"].startswith(f"http://{desks.daemon.http}/attachments/")
            assert given["name"] == "скан.png"

            async def there() -> httpx.Response | None:
                answer = await stranger.get(given["url"])
                return answer if answer.status_code == 200 else None

            async with httpx.AsyncClient(trust_env=False, timeout=60) as stranger:
                whole = await eventually(there)
                assert whole.content == bytes(range(256)) * 4
                assert whole.headers["content-type"] == "image/png"
                part = await stranger.get(given["url"], headers={"Range": "bytes=250-259"})
                assert (part.status_code, part.content, part.headers["content-range"]) == (206, (bytes(range(256)) * 2)[250:260], "bytes 250-259/1024")
                assert (await stranger.get(given["url"], headers={"Range": "bytes=5000-"})).status_code == 416
                assert (await stranger.head(given["url"])).headers["content-length"] == "1024"
                is_problem(await stranger.get(given["url"][:-3] + "AAA"), 404)
                # A link to a recording opens no attachment, and the other way round.
                is_problem(await stranger.get(given["url"].replace("/attachments/", "/recordings/")), 404)
                assert (await api.post(f"/api/enterprises/{TMA}/recordings/revoke")).status_code == 204
                is_problem(await stranger.get(given["url"]), 404)
    finally:
        await runner.cleanup()


async def test_smart_redirect_offers_a_call_to_the_agent_of_the_open_ticket(desks: Desks) -> None:
    async with desks.daemon.client() as api:
        one = f"/api/enterprises/{CRM}"
        document = (await api.get(one)).json()
        pbx = {"name": "main", "host": "127.0.0.1", "port": 9, "internal_number": "^1\\d\\d$"}
        assert (await api.put(one, json={**document, "pbxs": [pbx], "smart_redirect": {"crm": ["tickets"]}})).status_code == 200

        async def asked(phone: str) -> str:
            return str((await api.post("/api/smart-redirect", json={"enterprise_number": CRM, "phone": phone})).json()["status"])

        for phone, agent in (("+375296254070", {"agent": "150"}), ("+375296254071", {})):
            await api.post(f"{one}/tickets", json={"subject": "x", "message": "y", "phone": phone, **agent})
        # 150 is the one, and no PBX says that the phone is free; of the others nobody is named.
        assert [await asked(phone) for phone in ("+375296254070", "+375296254071", "+375296254072")] == ["busy", "unknown", "unknown"]
