"""The sandbox's GET /api/v5/telephony/manager: who looks after a client. Strict where the API is documented."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_PARAMETERS = frozenset({"phone", "details", "ignoreStatus", "apiKey"})
_BOOLEANS = frozenset({"0", "1", "true", "false"})
Refuse = Callable[..., web.Response]


@dataclass
class Client:
    """A customer; `manager` is a user's id, or None."""

    id: int
    first_name: str
    last_name: str
    manager: int | None


@dataclass
class Manager:
    """A user; `code` is the extension that the account holds, or None."""

    id: int
    first_name: str
    code: str | None
    is_free: bool = True


@dataclass
class Managers:
    """Clients by the digits of their number. `stall_s`: every answer comes this late; `status`: it is an error of this status;
    `ids_as_text`: ids are strings. `asked`: the numbers that were asked for."""

    clients: dict[str, Client] = field(default_factory=dict)
    managers: dict[int, Manager] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    stall_s: float = 0.0
    status: int = 200
    ids_as_text: bool = False

    def add(self, phone: str, user_id: int | None, code: str | None = None, name: str = "Олег", last_name: str = "") -> None:
        """A client with its manager."""
        digits = "".join(filter(str.isdigit, phone))
        self.clients[digits] = Client(500 + len(self.clients), name, last_name, user_id)
        if user_id is not None:
            self.managers[user_id] = Manager(user_id, "Анна", code)

    async def handle(self, request: web.Request, answer: Callable[..., web.Response], refuse: Refuse) -> web.Response:
        """One question."""
        query = request.query
        phone = query.get("phone", "")
        self.asked.append(phone)
        if self.stall_s:
            await asyncio.sleep(self.stall_s)
        if self.status != 200:
            return answer({"success": False, "errorMsg": "Internal error"}, self.status)
        wrong = {name: "This field was not expected." for name in query if name not in _PARAMETERS}
        wrong |= {name: "The value is not valid." for name in ("details", "ignoreStatus") if name in query and query[name].lower() not in _BOOLEANS}
        if not phone:
            wrong["phone"] = "This value should not be blank."
        if wrong:
            return refuse(400, "Errors in the input parameters", wrong)
        wants_details, ignores_status = (query.get(name, "0").lower() in ("1", "true") for name in ("details", "ignoreStatus"))
        return answer({"success": True, **self._known("".join(filter(str.isdigit, phone)), wants_details, ignores_status)})

    def _known(self, digits: str, wants_details: bool, ignores_status: bool) -> dict[str, Any]:
        client = self.clients.get(digits)
        manager = self.managers.get(client.manager) if client and client.manager is not None else None
        body: dict[str, Any] = {}
        if manager is not None and (manager.is_free or ignores_status):
            body["manager"] = {"id": self._id(manager.id), "firstName": manager.first_name, "lastName": "Сидорова", "email": "anna@shop.example"}
            if manager.code is not None:
                body["manager"]["code"] = manager.code
        if wants_details and client is not None:
            names = {"firstName": client.first_name, **({"lastName": client.last_name} if client.last_name else {})}
            body["customer"] = {"id": self._id(client.id), "externalId": f"c-{client.id}", **names, "phones": [{"number": digits}]}
        if wants_details:
            link = "customerLink" if client is not None else "newCustomerLink"
            body["links"] = {
                link: f"https://acme.retailcrm.example/customers/{client.id if client else 'new'}",
                "newOrderLink": "https://acme.retailcrm.example/orders/new",
            }
        return body

    def _id(self, number: int) -> int | str:
        return str(number) if self.ids_as_text else number
