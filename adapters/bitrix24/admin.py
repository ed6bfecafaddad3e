"""What an administrator does with Bitrix24: the connection test."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.base import Connection
from adapters.bitrix24.client import Accepted, Command, Portal
from adapters.bitrix24.config import Bitrix24Settings
from adapters.bitrix24.limits import SYNC
from daemon.model.delivery import AuthExpired, Check, Delivered, Outcome

_NEEDED = {"telephony": "popups", "crm": "journal", "user": "managers"}


async def check_connection(connection: Connection) -> list[Check]:
    """user.current proves the address and the credentials, scope shows the rights: one request. An application that nobody has
    connected yet is a line of its own."""
    settings: Bitrix24Settings = connection.settings
    field = "client_id" if settings.webhook_url is None else "webhook_url"
    portal = Portal(connection)
    answers = await portal.run([Command("me", "user.current", {}), Command("scope", "scope", {})], SYNC)
    if not isinstance(answers, Mapping):
        reason = _reason(answers)
        if isinstance(answers, AuthExpired):
            return [Check("credentials", False, reason, field)]
        return [Check("reachable", False, reason, field)]
    me, scope = answers["me"], answers["scope"]
    checks = [Check("reachable", True)]
    checks.append(Check("credentials", True) if isinstance(me, Accepted) else Check("credentials", False, _reason(me), field))
    granted = {str(name) for name in scope.result} if isinstance(scope, Accepted) and isinstance(scope.result, list) else None
    for name, what in _NEEDED.items():
        has = granted is None or name in granted or (name == "user" and bool(granted & {"user_basic", "user_brief"}))
        checks.append(Check(what, has, "" if has else f"the right {name} is not granted", None if has else field))
    if any(rule.do == "task" for rule in settings.rules) and granted is not None and not granted & {"task", "tasks"}:
        checks.append(Check("tasks", False, "a rule makes tasks, and the right task is not granted", field))
    return checks


def _reason(answer: Accepted | Outcome) -> str:
    return "" if isinstance(answer, (Accepted, Delivered)) else answer.reason
