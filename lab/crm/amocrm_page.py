"""The account as a person uses it: contacts with numbers to click on, popups, calls; the widget as amoCRM's page would load it."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from aiohttp import web

from lab.crm.amocrm_data import phones

if TYPE_CHECKING:
    from lab.crm.amocrm import AmoCrmSandbox

KEPT = 50
_WIDGET = "adapters.amocrm"
_TYPES = {"script.js": "text/javascript", "i18n/ru.json": "application/json", "i18n/en.json": "application/json"}


class AmoPage:
    """`telephony`: vochid's address, as the widget's settings name it."""

    def __init__(self, box: AmoCrmSandbox) -> None:
        self._box = box
        self.telephony = ""

    def add_to(self, application: web.Application) -> None:
        add = application.router.add_route
        add("GET", "/", self._show)
        add("GET", "/favicon.ico", self._nothing)
        add("GET", "/-/host.js", self._host)
        add("GET", "/-/state", self._state)
        add("POST", "/-/token", self._token)
        add("GET", "/-/widget/settings", self._settings)
        add("GET", "/-/widget/{name:.+}", self._widget)

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(text=(files("lab.crm") / "amocrm_page.html").read_text(), content_type="text/html")

    async def _nothing(self, _: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _host(self, _: web.Request) -> web.Response:
        return web.Response(text=(files("lab.crm") / "amocrm_page.js").read_text(), content_type="text/javascript")

    async def _state(self, _: web.Request) -> web.Response:
        account = self._box.account
        return self._box.answer(
            {
                "users": [{"id": user.id, "name": user.name} for user in account.users.values() if user.active],
                "contacts": [{"name": item["name"], "phone": next(iter(phones(item)), "")} for item in account.contacts.values()],
                "popups": self._box.calls.events[-KEPT:],
                "calls": account.calls()[-KEPT:],
            }
        )

    async def _token(self, request: web.Request) -> web.Response:
        return self._box.answer({"token": self._box.oauth.disposable(int(request.query["user"]))})

    async def _settings(self, _: web.Request) -> web.Response:
        return self._box.answer({"server": self.telephony})

    async def _widget(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in _TYPES:
            raise web.HTTPNotFound
        return web.Response(text=(files(_WIDGET) / "widget" / name).read_text(), content_type=_TYPES[name])
