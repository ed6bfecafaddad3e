"""The other side of the desk over HTTP, and what each of its answers means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.http import CrmHttp, OverLimit, Response, Unanswered, Unreachable
from adapters.tickets.config import TicketsSettings
from adapters.tickets.limits import ALL, SEQUENCE_HEADER
from daemon.model.delivery import Ambiguous, AuthExpired, Outcome, Rejected, Retry, Throttled

THROTTLE_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The other side has it. `remote_id`: how it calls it there, None when it does not say. `was_there`: it had it already."""

    remote_id: str | None
    was_there: bool = False


Answer = Accepted | Outcome


class DeskClient:
    """The other side for one attempt."""

    def __init__(self, settings: TicketsSettings, http: CrmHttp) -> None:
        self._base = settings.remote_url
        self._headers = {"Authorization": f"Bearer {settings.deploy_token.get_secret_value()}", "Accept": "application/json"}
        self._http = http

    async def post(self, what: str, body: Mapping[str, Any], sequence: int | None = None) -> Answer:
        """POST /api/integration/{what}."""
        response = await self.raw(what, body, sequence)
        return interpret(response) if isinstance(response, Response) else response

    async def raw(self, what: str, body: Mapping[str, Any], sequence: int | None = None) -> Response | Outcome:
        """The same; the answer as it came."""
        headers = self._headers if sequence is None else {**self._headers, SEQUENCE_HEADER: str(sequence)}
        try:
            return await self._http.request("POST", f"{self._base}/api/integration/{what}", bucket=ALL, headers=headers, body=dict(body))
        except Unreachable as error:
            return Retry(str(error))
        except Unanswered as error:
            return Ambiguous(str(error))
        except OverLimit as error:
            return Throttled(str(error), error.after_s)


def interpret(response: Response) -> Answer:
    """What an answer means. Pure."""
    status, body = response.status, _json(response)
    words = error_words(body) or response.text.strip()[:200]
    if status in (200, 201) and body is None and response.text.strip():
        return Ambiguous(f"the answer is not JSON: {response.text.strip()[:80]}")
    if 200 <= status < 300:
        return Accepted(remote_id(body), was_there=status == 200)
    if status == 409:
        return Accepted(remote_id(body), was_there=True)
    if status == 429:
        return Throttled(words or "too many requests", response.retry_after_s or THROTTLE_PAUSE_S)
    if status >= 500 or status in (408, 425):
        return Retry(f"{status}: {words}", response.retry_after_s)
    if status in (401, 403):
        return AuthExpired(f"{status}: {words}")
    if 300 <= status < 400:
        return AuthExpired(f"the address redirects (to {response.headers.get('location', '?')[:100]}): enter the other side's own address")
    if is_wrong_role(response):
        return AuthExpired("both sides play the same role: one of them is tma, the other one crm")
    return Rejected(f"{status}: {words}")


def is_wrong_role(response: Response) -> bool:
    """Whether the other side says that it does not serve this in its role."""
    body = _json(response)
    return response.status == 404 and isinstance(body, Mapping) and body.get("code") == "wrong_role"


def is_no_route(response: Response) -> bool:
    """Whether the other side has no such path at all: its 404 says nothing of a ticket."""
    body = _json(response)
    if response.status == 405:
        return True
    named = isinstance(body, Mapping) and (body.get("code") in ("no_such_route", "wrong_role") or body.get("detail") == "Not Found")
    return response.status == 404 and (body is None or named)


def remote_id(body: Any) -> str | None:
    """The id in an answer: at id, data.id or ticket.id, a number or text."""
    if not isinstance(body, Mapping):
        return None
    for holder in (body, body.get("data"), body.get("ticket")):
        found = holder.get("id") if isinstance(holder, Mapping) else None
        if isinstance(found, (int, str)) and not isinstance(found, bool) and str(found):
            return str(found)[:200]
    return None


def error_words(body: Any) -> str:
    """What it says is wrong, in any of the usual places."""
    if not isinstance(body, Mapping):
        return ""
    for name in ("detail", "message", "error", "title"):
        if (value := body.get(name)) not in (None, ""):
            return str(value)[:500]
    return ""


def _json(response: Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
