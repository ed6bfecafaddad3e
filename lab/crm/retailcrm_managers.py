"""The sandbox's GET /api/v5/telephony/manager: who looks after a client. Strict where the API is documented."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lab.crm.retailcrm_data import Customer, User

if TYPE_CHECKING:
    from lab.crm.retailcrm import RetailCrmSandbox

_PARAMETERS = frozenset({"phone", "details", "ignoreStatus", "apiKey"})
_TRUE, _FALSE = ("1", "true"), ("0", "false")


@dataclass
class ManagerLookup:
    """Answers from the account's customers, users and extensions.

    `stall_s`: every answer comes this late; `status`: it is an error of this status; `asked`: the numbers that were asked for.
    """

    box: RetailCrmSandbox
    asked: list[str] = field(default_factory=list)
    stall_s: float = 0.0
    status: int = 200

    def add(self, phone: str, user_id: int | None, code: str | None = None, name: str = "Олег", last_name: str = "") -> None:
        """A customer with a manager, instead of whoever had this number; `code`: the extension that the account holds for the manager."""
        account = self.box.account
        former = account.customer_of(phone)
        customer_id = former.id if former else max(account.customers, default=500) + 1
        account.customers[customer_id] = Customer(customer_id, name, last_name, phone, user_id)
        if user_id is not None:
            account.users.setdefault(user_id, User(user_id, "Анна", "Сидорова"))
            account.own_codes.pop(user_id, None)
            if code is not None:
                account.own_codes[user_id] = code

    async def handle(self, request: web.Request) -> web.Response:
        """One question."""
        query = request.query
        phone = query.get("phone", "")
        self.asked.append(phone)
        if self.stall_s:
            await asyncio.sleep(self.stall_s)
        if self.status != 200:
            return self.box.answer({"success": False, "errorMsg": "Internal error"}, self.status)
        wrong = {name: "This field was not expected." for name in query if name not in _PARAMETERS}
        wrong |= {name: "The value is not valid." for name in ("details", "ignoreStatus") if query.get(name, "0").lower() not in _TRUE + _FALSE}
        if not phone:
            wrong["phone"] = "This value should not be blank."
        if wrong:
            return self.box.refuse(400, "Errors in the input parameters", wrong)
        wants_details, ignores_status = (query.get(name, "0").lower() in _TRUE for name in ("details", "ignoreStatus"))
        return self.box.answer({"success": True, **self._known(phone, wants_details, ignores_status)})

    def _known(self, phone: str, wants_details: bool, ignores_status: bool) -> dict[str, Any]:
        account, url = self.box.account, self.box.url
        customer = account.customer_of(phone)
        manager = account.users.get(customer.manager or 0) if customer else None
        body: dict[str, Any] = {}
        if manager is not None and (ignores_status or (manager.active and manager.status == "free")):
            code = {"code": account.codes[manager.id]} if manager.id in account.codes else {}
            named = {"firstName": manager.first_name, "lastName": manager.last_name, "email": f"user{manager.id}@shop.example"}
            body["manager"] = {"id": self._id(manager.id), **named, **code}
        if wants_details:
            order = {"newOrderLink": f"{url}/orders/new?phone={phone}"}
            if customer is not None:
                names = {"firstName": customer.first_name, **({"lastName": customer.last_name} if customer.last_name else {})}
                body["customer"] = {"id": self._id(customer.id), "externalId": f"c-{customer.id}", **names, "phones": [{"number": customer.phone}]}
            link = {"customerLink": f"{url}/customers/{customer.id}"} if customer else {"newCustomerLink": f"{url}/customers/new?phone={phone}"}
            body["links"] = {**link, **order}
        return body

    def _id(self, number: int) -> int | str:
        return str(number) if self.box.switches.text_ids else number
