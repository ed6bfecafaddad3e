"""What an account holds: users, customers, shops, modules; and the rules for a module's entry. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

STATUSES = ("free", "busy", "dinner", "break")
MODULE_FIELDS = frozenset(
    {"code", "integrationCode", "active", "freeze", "name", "logo", "clientId", "baseUrl", "actions", "availableCountries", "accountUrl", "native",
     "integrations"}
)  # fmt: skip
TELEPHONY_FIELDS = frozenset(
    {"makeCallUrl", "changeUserStatusUrl", "allowEdit", "inputEventSupported", "outputEventSupported", "hangupEventSupported", "additionalCodes",
     "externalPhones"}
)  # fmt: skip
_FLAGS = ("allowEdit", "inputEventSupported", "outputEventSupported", "hangupEventSupported")


@dataclass
class User:
    """A person of the account. `code`: the extension in the own card; a module's entry goes before it."""

    id: int
    first_name: str
    last_name: str = ""
    active: bool = True
    status: str = "free"
    is_admin: bool = False
    code: str | None = None

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}".strip()

    def to_json(self) -> dict[str, Any]:
        """As GET /users shows it: empty optional fields are absent."""
        optional = {"lastName": self.last_name} if self.last_name else {}
        return {
            "id": self.id, "createdAt": "2026-01-10 09:00:00", "active": self.active, "email": f"user{self.id}@shop.example",
            "firstName": self.first_name, **optional, "status": self.status, "online": self.active, "isAdmin": self.is_admin, "isManager": True,
            "groups": [{"id": 25, "name": "Managers", "code": "manager"}],
        }  # fmt: skip


@dataclass
class Customer:
    """Somebody who calls; `manager`: the id of the user who looks after them."""

    id: int
    first_name: str
    last_name: str
    phone: str
    manager: int | None = None

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}".strip()

    def to_json(self) -> dict[str, Any]:
        optional = {**({"lastName": self.last_name} if self.last_name else {}), **({"managerId": self.manager} if self.manager else {})}
        return {
            "id": self.id, "externalId": f"c-{self.id}", "firstName": self.first_name, "phones": [{"number": self.phone}], **optional,
        }  # fmt: skip


@dataclass
class Account:
    """The data behind the API. `modules`: by code, as they were sent, clientId included."""

    users: dict[int, User] = field(default_factory=dict)
    customers: dict[int, Customer] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=lambda: {"main-shop": "Main shop"})
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def telephony(self) -> dict[str, Any] | None:
        """The active module with telephony, or None."""
        return next((m for m in self.modules.values() if m.get("active", True) and "telephony" in m.get("integrations", {})), None)

    @property
    def codes(self) -> dict[int, str]:
        """Extensions by user, as the telephony module's entry holds them."""
        module = self.telephony
        listed = module["integrations"]["telephony"].get("additionalCodes", []) if module else []
        return {int(item["userId"]): item["code"] for item in listed}

    def customer_of(self, phone: str) -> Customer | None:
        """Who has this number, in whatever form it is written."""
        digits = re.sub(r"\D", "", phone)[-9:]
        return next((c for c in self.customers.values() if len(digits) >= 7 and re.sub(r"\D", "", c.phone).endswith(digits)), None)


def sample_account() -> Account:
    """Five people, six customers, one shop."""
    people = [
        User(19, "Анна", "Сидорова"), User(22, "Борис", "Ковальчук"), User(25, "Вера", "Лис"), User(31, "Глеб"),
        User(40, "Дарья", "Пас", active=False), User(1, "Администратор", is_admin=True),
    ]  # fmt: skip
    customers = [
        Customer(501, "Олег", "Мороз", "+375296254070", 19), Customer(502, "ООО «Восток, север»", "", "+375291111101", 22),
        Customer(503, "Ирина", "Гай", "+375331234567", 25), Customer(504, "Павел", "Тур", "+375447654321"),
        Customer(505, "Марта", "O'Neil", "+74955550101", 31), Customer(506, "Ян", "Крук", "+375259998877", 19),
    ]  # fmt: skip
    return Account({user.id: user for user in people}, {customer.id: customer for customer in customers})


def module_errors(module: Any, code: str, *, is_new: bool) -> dict[str, str]:
    """What is wrong with an entry sent to integration-modules/{code}/edit, by field."""
    if not isinstance(module, dict):
        return {"integrationModule": "This value should be of type array."}
    errors = {name: "This field was not expected." for name in module if name not in MODULE_FIELDS}
    family = module.get("integrationCode")
    if not isinstance(family, str) or not family:
        errors["integrationCode"] = "This value should not be blank."
    elif module.get("code") != code or not code.startswith(family):
        errors["code"] = "Code prefix must match integrationCode"
    for name in ("name", "baseUrl") if is_new else ():
        if not module.get(name):
            errors[name] = "This value should not be blank."
    for name in ("logo", "baseUrl", "accountUrl"):
        if name in module and not _is_url(module[name]):
            errors[name] = "This value is not a valid URL."
    if "logo" in module and "logo" not in errors and not urlsplit(module["logo"]).path.endswith(".svg"):
        errors["logo"] = "Logo image must be svg"
    for name in ("active", "freeze", "native"):
        if name in module and not isinstance(module[name], bool):
            errors[name] = "This value should be of type bool."
    actions = module.get("actions", {})
    if not isinstance(actions, dict) or any(not isinstance(path, str) or "://" in path for path in actions.values()):
        errors["actions"] = "This value is not valid."
    integrations = module.get("integrations", {})
    if not isinstance(integrations, dict):
        errors["integrations"] = "This value should be of type array."
    elif "telephony" in integrations:
        if not isinstance(module.get("clientId"), str) or not module["clientId"]:
            errors["clientId"] = "This value should not be blank."
        errors |= {f"integrations.telephony.{name}": text for name, text in _telephony_errors(integrations["telephony"]).items()}
    return errors


def _telephony_errors(telephony: Any) -> dict[str, str]:
    if not isinstance(telephony, dict):
        return {"": "This value should be of type array."}
    errors = {name: "This field was not expected." for name in telephony if name not in TELEPHONY_FIELDS}
    for name in ("makeCallUrl", "changeUserStatusUrl"):
        if name in telephony and not _is_url(telephony[name]):
            errors[name] = "This value is not a valid URL."
    for name in _FLAGS:
        if name in telephony and not isinstance(telephony[name], bool):
            errors[name] = "This value should be of type bool."
    for name, keys in (("additionalCodes", ("userId", "code")), ("externalPhones", ("siteCode", "externalPhone"))):
        items = telephony.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) and set(item) == set(keys) for item in items):
            errors[name] = f"Each item has {' and '.join(keys)}."
        elif any(not isinstance(item[keys[1]], str) or not item[keys[1]] for item in items):
            errors[name] = f"{keys[1]} should be a string."
        elif any(not str(item[keys[0]]).strip() or isinstance(item[keys[0]], (bool, float)) for item in items):
            errors[name] = f"{keys[0]} should not be blank."
        elif keys[0] == "userId" and any(not str(item["userId"]).isdecimal() for item in items):
            errors[name] = "userId should be a number."
    return errors


def _is_url(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > 2_000:
        return False
    parts = urlsplit(value)
    return parts.scheme in ("http", "https") and bool(parts.hostname)
