"""The connection test of a desk: what the other side says to a body that nobody could take."""

from __future__ import annotations

from adapters.http import Response
from adapters.tickets.client import DeskClient, interpret, is_no_route, is_wrong_role
from daemon.model.delivery import AuthExpired, Check


async def check_connection(client: DeskClient, role: str) -> list[Check]:
    """An empty body is refused with 400 or 422 by whoever knows the token and serves the route; nothing is made."""
    what = "tickets" if role == "tma" else "messages"
    response = await client.raw(what, {})
    if not isinstance(response, Response):
        return [Check("reachable", False, getattr(response, "reason", ""), "remote_url")]
    if is_wrong_role(response):
        return [Check("reachable", True), Check("credentials", True), Check("role", False, "the other side plays the same role", "role")]
    outcome = interpret(response)
    if isinstance(outcome, AuthExpired):
        is_redirect = 300 <= response.status < 400
        return [Check("reachable", not is_redirect, outcome.reason if is_redirect else "", "remote_url" if is_redirect else None)] + (
            [] if is_redirect else [Check("credentials", False, outcome.reason, "deploy_token")]
        )
    if is_no_route(response):
        return [Check("reachable", False, f"there is no /api/integration/{what} at this address", "remote_url")]
    if response.status >= 500:
        return [Check("reachable", False, getattr(outcome, "reason", ""), "remote_url")]
    return [Check("reachable", True), Check("credentials", True), Check("role", True)]
