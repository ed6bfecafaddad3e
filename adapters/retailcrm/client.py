"""RetailCRM over HTTP: the form encoding, and what each of its answers means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.http import CrmHttp, OverLimit, Response, Unanswered, Unreachable
from adapters.retailcrm.config import RetailCrmSettings
from adapters.retailcrm.limits import OTHER, TELEPHONY
from daemon.model.delivery import Ambiguous, AuthExpired, Outcome, Rejected, Retry, Throttled

PARTLY_DONE = 460  # a batch of which some items were taken; the body tells
THROTTLE_PAUSE_S = 1.0  # no Retry-After is documented; the window is a second


@dataclass(frozen=True, slots=True)
class Accepted:
    """A body with success: true, or the body of a partly done batch."""

    body: Mapping[str, Any]
    is_partial: bool = False


Answer = Accepted | Outcome


class RetailCrmClient:
    """One account for one attempt."""

    def __init__(self, settings: RetailCrmSettings, http: CrmHttp) -> None:
        self._base = settings.domain
        self._headers = {"X-API-KEY": settings.api_key.get_secret_value(), "Accept": "application/json"}
        self._http = http

    async def get(self, path: str, **query: str) -> Answer:
        """GET /api/{path}."""
        return await self._send("GET", path, query=query or None)

    async def post(self, path: str, **fields: Any) -> Answer:
        """POST /api/{path} as a form; a structured field travels as a JSON string."""
        form = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in fields.items()}
        return await self._send("POST", path, form=form)

    async def _send(self, method: str, path: str, **more: Any) -> Answer:
        bucket = TELEPHONY if path.startswith("v5/telephony") else OTHER
        try:
            response = await self._http.request(method, f"{self._base}/api/{path}", bucket=bucket, headers=self._headers, **more)
        except Unreachable as error:
            return Retry(str(error))
        except Unanswered as error:
            return Ambiguous(str(error))
        except OverLimit as error:
            return Throttled(str(error), error.after_s)
        return interpret(response)


def interpret(response: Response) -> Answer:
    """What an answer means (the decision rule of docs/adapters/retailcrm.md). Pure."""
    status = response.status
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return _not_json(response)
    words = error_words(body)
    if status == 429 or (status == 503 and "rate limit" in words.lower()):
        return Throttled(words or "rate limit", response.retry_after_s or THROTTLE_PAUSE_S)
    if status >= 500:
        return Retry(f"{status}: {words}", response.retry_after_s)
    if status == PARTLY_DONE:
        return Accepted(body, is_partial=True)
    if status in (401, 403):
        return AuthExpired(f"{status}: {words}")
    if "account does not exist" in words.lower():
        return AuthExpired(words)
    if 200 <= status < 300 and _truth(body.get("success")):
        return Accepted(body)
    return Rejected(f"{status}: {words}")


def _not_json(response: Response) -> Outcome:
    start = response.text.strip()[:80]
    if response.status >= 500:
        return Throttled("503", response.retry_after_s) if response.status == 503 and response.retry_after_s else Retry(f"{response.status}: {start}")
    if response.status == 429:
        return Throttled("429", response.retry_after_s or THROTTLE_PAUSE_S)
    if response.status == 405 and start.startswith("<"):
        return AuthExpired("there is no such account at this address")
    if 300 <= response.status < 400:
        return AuthExpired(f"the address redirects (to {response.headers.get('location', '?')[:100]}): enter the account's own address")
    if response.status in (401, 403):
        return AuthExpired(f"{response.status}: {start}")
    if 200 <= response.status < 300:
        return Ambiguous(f"the answer is not JSON: {start}")
    return Rejected(f"{response.status}: {start}")


def error_words(body: Mapping[str, Any]) -> str:
    """errorMsg and errors, which is an object for validation and an array for module activation."""
    errors = body.get("errors")
    details: list[str] = []
    if isinstance(errors, Mapping):
        details = [f"{field}: {text}" for field, text in errors.items()]
    elif isinstance(errors, list):
        details = [str(text) for text in errors]
    return "; ".join([str(body.get("errorMsg") or ""), *details]).strip("; ")[:500]


def _truth(value: Any) -> bool:
    """`success` was also seen as the string 'false'."""
    return value is True or (isinstance(value, str) and value.lower() == "true")
