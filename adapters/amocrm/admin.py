"""What an administrator tries of amoCRM: the account, and what its token may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from adapters.amocrm.client import Accepted, AmoClient, Problem
from daemon.model.delivery import AuthExpired, Check, Delivered, Throttled


async def check_connection(client: AmoClient, *, is_connected: bool, renamed: Callable[[], Awaitable[str | None]]) -> list[Check]:
    """GET /api/v4/account proves address and token, GET /api/v4/users that the users can be read. `renamed`: the host that the account
    has by now."""
    settings = client.settings
    field = "long_lived_token" if settings.long_lived_token is not None else "client_id"
    if not is_connected:
        # No failure of these settings: they have to be stored before an administrator can consent with them.
        return [Check("connected", True, "not connected yet: save, then connect at amoCRM")]
    answer = await client.get("api/v4/account", {"with": "version"})
    if isinstance(answer, AuthExpired):
        if not ("account at this address" in answer.reason or "redirect" in answer.reason):
            return [Check("credentials", False, answer.reason, field)]
        now = await renamed()
        return [Check("credentials", False, f"the account is called {now} by now: enter that address and connect again" if now else answer.reason, "base_url")]
    if isinstance(answer, Problem):
        return [Check("reachable", False, answer.words, "base_url")]
    if not isinstance(answer, Accepted):
        reason = answer.detail if isinstance(answer, Delivered) else answer.reason
        return [Check("credentials" if isinstance(answer, Throttled) else "reachable", False, reason, "base_url")]
    checks = [Check("reachable", True), Check("credentials", True, str(answer.body.get("name") or ""))]
    if answer.body.get("is_unsorted_on") is False:
        checks.append(Check("incoming leads", True, "incoming leads are switched off in the account: unknown callers need a rule with another outcome"))
    users = await client.get("api/v4/users", {"limit": "1"})
    if not isinstance(users, Accepted):
        words = users.words if isinstance(users, Problem) else getattr(users, "reason", "")
        checks.append(Check("users", False, f"the users cannot be read, an administrator of the account must connect it: {words}", field))
    return checks
