"""What an administrator does with RetailCRM: so far the connection test."""

from __future__ import annotations

from adapters.retailcrm.client import Accepted, RetailCrmClient
from daemon.model.delivery import AuthExpired, Check, Delivered

# Paths of the older list `credentials`, and the scope that stands for them in the newer one.
_NEEDED = {"/api/telephony/call/event": "popups", "/api/telephony/calls/upload": "journal"}
_WRITE_SCOPE = "telephony_write"


async def check_connection(client: RetailCrmClient) -> list[Check]:
    """GET /api/credentials proves the address and the key and shows its rights."""
    answer = await client.get("credentials")
    if isinstance(answer, AuthExpired):
        field = "domain" if "account" in answer.reason or "redirect" in answer.reason else "api_key"
        return [Check("credentials", False, answer.reason, field)]
    if not isinstance(answer, Accepted):
        reason = answer.detail if isinstance(answer, Delivered) else answer.reason
        return [Check("reachable", False, reason, "domain")]
    checks = [Check("reachable", True), Check("credentials", True)]
    scopes, paths = answer.body.get("scopes") or [], answer.body.get("credentials") or []
    for path, what in _NEEDED.items():
        granted = not (scopes or paths) or _WRITE_SCOPE in scopes or path in paths
        checks.append(Check(what, granted, "" if granted else f"the key may not use {path}: grant it telephony rights", None if granted else "api_key"))
    return checks
