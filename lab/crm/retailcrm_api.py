"""The account's methods besides popups and journal: modules, users, shops, customers, the responsible manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from lab.crm.retailcrm_data import STATUSES, module_errors

if TYPE_CHECKING:
    from lab.crm.retailcrm import RetailCrmSandbox

LIMITS = ("20", "50", "100")
USER_FILTERS = frozenset({"email", "status", "online", "active", "isManager", "isPosManager", "isAdmin", "groups", "createdAtFrom", "createdAtTo"})
_TRUE, _FALSE = ("1", "true", "True"), ("0", "false", "False")


class AccountApi:
    """Methods over the sandbox's account."""

    def __init__(self, box: RetailCrmSandbox) -> None:
        self._box = box

    def add_to(self, application: web.Application) -> None:
        router = application.router
        router.add_get("/api/v5/integration-modules/{code}", self._get_module)
        router.add_post("/api/v5/integration-modules/{code}/edit", self._edit_module)
        router.add_get("/api/v5/users", self._users)
        router.add_get("/api/v5/users/{id}", self._user)
        router.add_post("/api/v5/users/{id}/status", self._user_status)
        router.add_get("/api/v5/reference/sites", self._sites)
        router.add_get("/api/v5/customers", self._customers)
        router.add_get("/api/v5/telephony/manager", self._manager)

    # -- modules -----------------------------------------------------------------------------------------------------------

    async def _get_module(self, request: web.Request) -> web.Response:
        module = self._box.account.modules.get(request.match_info["code"])
        if module is None:  # asking is no mistake: it does not count among the refusals
            return self._box.answer({"success": False, "errorMsg": "Not found"}, 404)
        shown = {name: value for name, value in module.items() if name != "clientId"}  # recorded answers hold none
        return self._box.answer({"success": True, "integrationModule": shown})

    async def _edit_module(self, request: web.Request) -> web.Response:
        code, account = request.match_info["code"], self._box.account
        module = await self._box.structure(request, "integrationModule")
        if isinstance(module, web.Response):
            return module
        is_new = code not in account.modules
        if errors := module_errors(module, code, is_new=is_new):
            return self._box.refuse(400, "Errors in the entity format", errors)
        if self._box.switches.check_logo and not await self._box.is_svg(module.get("logo", "")):
            return self._box.refuse(400, "Errors in the entity format", {"logo": "Logo image must be svg"})
        info = self._drop_unknown(module)
        account.modules[code] = {"active": True, "freeze": False, "native": False, **module}
        body: dict[str, Any] = {"success": True, "info": info or []}
        return self._box.answer(body, 201 if is_new else 200)

    def _drop_unknown(self, module: dict[str, Any]) -> dict[str, Any]:
        """Takes out codes of users and shops that there are not; gives `info`, which alone tells of it."""
        telephony, account = module.get("integrations", {}).get("telephony"), self._box.account
        if telephony is None:
            return {}
        codes, phones = telephony.get("additionalCodes", []), telephony.get("externalPhones", [])
        users = [int(item["userId"]) for item in codes if int(item["userId"]) not in account.users]
        sites = [item["siteCode"] for item in phones if item["siteCode"] not in account.sites]
        telephony["additionalCodes"] = [{"userId": int(item["userId"]), "code": item["code"]} for item in codes if int(item["userId"]) in account.users]
        telephony["externalPhones"] = [item for item in phones if item["siteCode"] in account.sites]
        return {**({"notExistUsersIds": users} if users else {}), **({"notExistSiteCodes": sites} if sites else {})}

    # -- users, shops, customers ---------------------------------------------------------------------------------------------

    async def _users(self, request: web.Request) -> web.Response:
        users = list(self._box.account.users.values())
        for name, value in request.query.items():
            if name in ("limit", "page", "apiKey"):
                continue
            key = name.removeprefix("filter[").removesuffix("]").removesuffix("][")
            if not name.startswith("filter[") or key not in USER_FILTERS:
                return self._box.refuse(400, "Errors in the input parameters", {name: "This field was not expected."})
            if key == "active":
                if value not in _TRUE + _FALSE:
                    return self._box.refuse(400, "Errors in the input parameters", {name: "This value is not valid."})
                users = [user for user in users if user.active == (value in _TRUE)]
            elif key == "status":
                users = [user for user in users if user.status == value]
        return self._page(request, "users", [user.to_json() for user in users])

    async def _user(self, request: web.Request) -> web.Response:
        user = self._box.account.users.get(_id(request))
        return self._box.answer({"success": True, "user": user.to_json()}) if user else self._box.refuse(404, "Not found")

    async def _user_status(self, request: web.Request) -> web.Response:
        user, status = self._box.account.users.get(_id(request)), (await request.post()).get("status")
        if user is None:
            return self._box.refuse(404, "Not found")
        if status not in STATUSES:
            return self._box.refuse(400, "Errors in the input parameters", {"status": "The value you selected is not a valid choice."})
        user.status = str(status)
        return self._box.answer({"success": True})

    async def _sites(self, _: web.Request) -> web.Response:
        sites = {code: {"name": name, "code": code, "url": f"https://{code}.example"} for code, name in self._box.account.sites.items()}
        return self._box.answer({"success": True, "sites": sites})

    async def _customers(self, request: web.Request) -> web.Response:
        wanted = request.query.get("filter[name]", "").casefold()
        found = [c for c in self._box.account.customers.values() if wanted in f"{c.name} {c.phone}".casefold()]
        return self._page(request, "customers", [customer.to_json() for customer in found])

    def _page(self, request: web.Request, name: str, items: list[dict[str, Any]]) -> web.Response:
        limit, page = request.query.get("limit", "20"), request.query.get("page", "1")
        if limit not in LIMITS or not page.isdecimal() or page == "0":
            return self._box.refuse(400, "Errors in the input parameters", {"limit": f"One of {', '.join(LIMITS)}."})
        size, number = int(limit), int(page)
        pages = max(1, -(-len(items) // size))
        pagination = {"limit": size, "totalCount": len(items), "currentPage": number, "totalPageCount": pages}
        return self._box.answer({"success": True, "pagination": pagination, name: items[(number - 1) * size : number * size]})

    async def _manager(self, request: web.Request) -> web.Response:
        return await self._box.managers.handle(request, self._box)


def _id(request: web.Request) -> int:
    text = request.match_info["id"]
    return int(text) if text.isdecimal() and len(text) < 10 else -1
