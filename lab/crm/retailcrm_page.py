"""The account as a person uses it: what rings, whom to call, the cabinet's door. And what the account does towards a PBX."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from lab.crm.retailcrm_data import STATUSES

if TYPE_CHECKING:
    from lab.crm.retailcrm import RetailCrmSandbox

PATHS = "/-/"
DEADLINE_S = 60.0
KEPT = 50


class AccountPage:
    """The page, its data, and its buttons. Buttons call the PBX's side from the account's own server, as the real one does."""

    def __init__(self, box: RetailCrmSandbox) -> None:
        self._box = box
        self._html = (files("lab.crm") / "retailcrm_page.html").read_text()
        self.callbacks: list[dict[str, Any]] = []

    def add_to(self, application: web.Application) -> None:
        application.router.add_get("/", self._show)
        application.router.add_get(PATHS + "state", self._state)
        application.router.add_post(PATHS + "call", self._call)
        application.router.add_post(PATHS + "status", self._status)
        application.router.add_post(PATHS + "switch", self._switch)

    # -- towards the PBX -------------------------------------------------------------------------------------------------------

    async def call(self, user: int, phone: str) -> dict[str, Any]:
        """A click on a number: the account's server calls makeCallUrl."""
        telephony = self._telephony()
        phones = telephony.get("externalPhones", [])
        external = {"externalPhone": phones[0]["externalPhone"]} if phones else {}
        code = self._box.account.codes.get(user)
        return await self._tell(telephony.get("makeCallUrl"), {"userId": str(user), **({"code": code} if code else {}), "phone": phone, **external})

    async def change_status(self, user: int, status: str) -> dict[str, Any]:
        """Somebody goes to lunch: the account keeps it and calls changeUserStatusUrl."""
        self._box.account.users[user].status = status
        code = self._box.account.codes.get(user)
        return await self._tell(self._telephony().get("changeUserStatusUrl"), {"userId": str(user), **({"code": code} if code else {}), "status": status})

    def _telephony(self) -> dict[str, Any]:
        module = self._box.account.telephony
        found: dict[str, Any] = module["integrations"]["telephony"] if module else {}
        return found

    async def _tell(self, url: str | None, parameters: dict[str, str]) -> dict[str, Any]:
        module = self._box.account.telephony
        if module is None or not url:
            return self._note(url or "", parameters, 0, "no active telephony module gives an address for this")
        parameters = {"clientId": module["clientId"], **parameters}
        method = self._box.switches.callback_method
        more: dict[str, Any] = {"params": parameters} if method == "GET" else {"data": parameters}
        try:
            timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
            async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session, session.request(method, url, **more) as answer:
                return self._note(f"{method} {url}", parameters, answer.status, (await answer.text())[:2_000])
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return self._note(f"{method} {url}", parameters, 0, f"{type(error).__name__}: {error}"[:300])

    def _note(self, what: str, parameters: dict[str, str], status: int, text: str) -> dict[str, Any]:
        hidden = {**parameters, **({"clientId": parameters["clientId"][:4] + "…"} if "clientId" in parameters else {})}
        note = {"at": time.time(), "what": what, "parameters": hidden, "status": status, "answer": text}
        self.callbacks = [*self.callbacks, note][-KEPT:]
        return note

    # -- for the browser ---------------------------------------------------------------------------------------------------------

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(text=self._html, content_type="text/html")

    async def _state(self, _: web.Request) -> web.Response:
        account, box = self._box.account, self._box
        names = {user.id: user.name for user in account.users.values()}
        return box.answer(
            {
                "users": [
                    {"id": u.id, "name": u.name, "active": u.active, "status": u.status, "code": account.codes.get(u.id)} for u in account.users.values()
                ],
                "customers": [{"id": c.id, "name": c.name, "phone": c.phone, "manager": names.get(c.manager or 0)} for c in account.customers.values()],
                "modules": list(account.modules.values()),
                "popups": [{"at": e.at, **e.data, "customer": self._name(e.data["phone"])} for e in box.events[-KEPT:]],
                "journal": [{**call, "customer": self._name(call["phone"])} for call in list(box.journal.values())[-KEPT:]],
                "callbacks": self.callbacks,
                "refusals": box.refusals[-KEPT:],
                "counts": {"popups": len(box.events), "journal": len(box.journal), "repeats": box.duplicates, "refusals": len(box.refusals)},
                "statuses": STATUSES,
                "switches": {"telephony_enabled": box.switches.telephony_enabled, "callback_method": box.switches.callback_method},
            }
        )

    def _name(self, phone: str) -> str | None:
        customer = self._box.account.customer_of(phone)
        return customer.name if customer else None

    async def _call(self, request: web.Request) -> web.Response:
        form = await request.post()
        return self._box.answer(await self.call(_user(form.get("user")), str(form.get("phone", ""))))

    async def _status(self, request: web.Request) -> web.Response:
        form = await request.post()
        user, status = _user(form.get("user")), str(form.get("status"))
        if user not in self._box.account.users or status not in STATUSES:
            return self._box.answer({"status": 400, "answer": "no such user or status"}, 400)
        return self._box.answer(await self.change_status(user, status))

    async def _switch(self, request: web.Request) -> web.Response:
        form, switches = await request.post(), self._box.switches
        match form.get("name"):
            case "telephony_enabled":
                switches.telephony_enabled = not switches.telephony_enabled
            case "callback_method":
                switches.callback_method = "POST" if switches.callback_method == "GET" else "GET"
            case _:
                return self._box.answer({"status": 400, "answer": "no such switch"}, 400)
        return self._box.answer({"success": True})


def _user(value: Any) -> int:
    text = str(value or "")
    return int(text) if text.isdecimal() and len(text) < 10 else -1
