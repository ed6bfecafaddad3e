"""GET /api/v5/telephony/manager: who looks after a customer, and how slow or broken the answer is to be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lab.crm.retailcrm_data import Account, Customer, User

if TYPE_CHECKING:
    from lab.crm.retailcrm import RetailCrmSandbox

_PARAMETERS = frozenset({"phone", "details", "ignoreStatus", "apiKey"})
_BOOLEANS = frozenset({"0", "1", "true", "false"})


class Managers:
    """Over the account's users and customers. `stall_s`: every answer comes this late; `status`: it is an error of this status;
    `ids_as_text`: ids are strings. `asked`: the numbers that were asked for."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.asked: list[str] = []
        self.stall_s = 0.0
        self.status = 200
        self.ids_as_text = False

    def add(self, phone: str, user_id: int | None, code: str | None = None, name: str = "Олег", last_name: str = "") -> None:
        """A customer with a manager, whose own card names the extension `code`."""
        account = self._account
        former = account.customer_of(phone)
        number = former.id if former else 500 + len(account.customers) + 1
        account.customers[number] = Customer(number, name, last_name, phone, user_id)
        if user_id is not None:
            account.users.setdefault(user_id, User(user_id, "Анна", "Сидорова")).code = code

    async def handle(self, request: web.Request, box: RetailCrmSandbox) -> web.Response:
        """One question."""
        query = request.query
        phone = query.get("phone", "")
        self.asked.append(phone)
        if self.stall_s:
            await asyncio.sleep(self.stall_s)
        if self.status != 200:
            return box.answer({"success": False, "errorMsg": "Internal error"}, self.status)
        wrong = {name: "This field was not expected." for name in query if name not in _PARAMETERS}
        wrong |= {name: "The value is not valid." for name in ("details", "ignoreStatus") if query.get(name, "0").lower() not in _BOOLEANS}
        if not phone:
            wrong["phone"] = "This value should not be blank."
        if wrong:
            return box.refuse(400, "Errors in the input parameters", wrong)
        wants_details, ignores_status = (query.get(name, "0").lower() in ("1", "true") for name in ("details", "ignoreStatus"))
        return box.answer({"success": True, **self._known(phone, wants_details, ignores_status, box.url)})

    def _known(self, phone: str, wants_details: bool, ignores_status: bool, url: str) -> dict[str, Any]:
        account = self._account
        customer = account.customer_of(phone)
        manager = account.users.get(customer.manager or 0) if customer else None
        body: dict[str, Any] = {}
        if manager is not None and (ignores_status or (manager.active and manager.status == "free")):
            code = account.codes.get(manager.id) or manager.code
            names = {"firstName": manager.first_name, **({"lastName": manager.last_name} if manager.last_name else {})}
            body["manager"] = {"id": self._id(manager.id), **names, "email": f"user{manager.id}@shop.example", **({"code": code} if code else {})}
        if wants_details and customer is not None:
            body["customer"] = {**customer.to_json(), "id": self._id(customer.id)}
        if wants_details:
            link = {"customerLink": f"{url}/customers/{customer.id}"} if customer else {"newCustomerLink": f"{url}/customers/new"}
            body["links"] = {**link, "newOrderLink": f"{url}/orders/new"}
        return body

    def _id(self, number: int) -> int | str:
        return str(number) if self.ids_as_text else number
