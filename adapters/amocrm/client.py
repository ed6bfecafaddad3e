"""amoCRM over HTTP: the bearer token, what each answer means, and the one renewal when the token is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.amocrm import oauth
from adapters.amocrm.config import AmoCrmSettings
from adapters.amocrm.limits import API, BLOCKED_PAUSE_S, LOOK_AGAIN_S, REFUSED_PAUSE_S, THROTTLE_PAUSE_S
from adapters.base import Connection
from adapters.http import OverLimit, Response, Unanswered, Unreachable
from daemon.model.delivery import Ambiguous, AuthExpired, Outcome, Rejected, Retry, Throttled

USERS = frozenset({"responsible_user_id", "created_by", "call_responsible"})


@dataclass(frozen=True, slots=True)
class Accepted:
    """A 2xx; `body` is empty for 204, which is how an empty list is told, and for a bare 202."""

    body: Mapping[str, Any] = field(default_factory=dict)

    def listed(self, name: str) -> list[Mapping[str, Any]]:
        """`_embedded.{name}`, whatever is there."""
        return embedded(self.body, name)


@dataclass(frozen=True, slots=True)
class Problem:
    """A 4xx with its body: refused for what it says, surely not done."""

    status: int
    body: Mapping[str, Any]

    @property
    def words(self) -> str:
        return error_words(self.body)

    @property
    def outcome(self) -> Rejected:
        return Rejected(f"{self.status}: {self.words}")


Answer = Accepted | Problem | Outcome


class AmoClient:
    """One account for one attempt. `may_exchange`: whether a refused token may be exchanged here; only where nobody cuts it short."""

    def __init__(self, connection: Connection, *, may_exchange: bool = True) -> None:
        self.settings: AmoCrmSettings = connection.settings
        self._connection = connection
        self._may_exchange = may_exchange
        self._token: str | None = None

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """GET {path}: repeatable, so an answer that was lost is a Retry."""
        answer = await self._send("GET", path, query=query)
        return Retry(answer.reason) if isinstance(answer, Ambiguous) else answer

    async def post(self, path: str, body: Any) -> Answer:
        """POST {path}: an answer that was lost, or a 5xx, may mean that it was done."""
        return await self._send("POST", path, body=body)

    async def post_one(self, path: str, item: Mapping[str, Any]) -> Answer:
        """POST {path} with one item; when it is refused for nothing but a user whom the account does not have, once more in nobody's
        name: what somebody who left has done is kept all the same."""
        answer = await self.post(path, [item])
        return await self.post(path, [without_users(item)]) if names_a_user(answer) else answer

    async def patch(self, path: str, body: Any) -> Answer:
        """PATCH {path}: sets what it says, as often as it is sent."""
        answer = await self._send("PATCH", path, body=body)
        return Retry(answer.reason) if isinstance(answer, Ambiguous) else answer

    async def delete(self, path: str, body: Any) -> Answer:
        """DELETE {path}."""
        return await self._send("DELETE", path, body=body)

    async def _send(self, method: str, path: str, **more: Any) -> Answer:
        try:
            if self._token is None:
                self._token = await oauth.current(self._connection)
            if self._token is None:
                return AuthExpired("not connected yet: an administrator has to connect it at amoCRM")
            response = await self._once(method, path, **more)
            if response.status == 401:
                renewed = await oauth.after_refusal(self._connection, self._token, may_exchange=self._may_exchange)
                if isinstance(renewed, str):
                    self._token = renewed
                    response = await self._once(method, path, **more)
                elif renewed is not None:
                    return renewed
        except Unreachable as error:
            return Retry(str(error))
        except Unanswered as error:
            return Ambiguous(str(error))
        except OverLimit as error:
            return Throttled(str(error), error.after_s)
        except TimeoutError:  # the lock
            return Throttled("another daemon is renewing the token", THROTTLE_PAUSE_S)
        return interpret(response, is_read=method == "GET")

    async def _once(self, method: str, path: str, **more: Any) -> Response:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/hal+json, application/json"}
        return await self._connection.http.request(method, f"{self.settings.base_url}/{path}", bucket=API, headers=headers, **more)


def interpret(response: Response, *, is_read: bool) -> Answer:
    """What an answer means (the decision rule of docs/adapters/amocrm.md). Pure."""
    status, body = response.status, _body(response)
    words = error_words(body) if body else response.text.strip()[:80]
    if status == 429:
        return Throttled(f"429: {words}", response.retry_after_s or THROTTLE_PAUSE_S)
    if 200 <= status < 300:
        if body is not None:
            return Accepted(body)
        # 202 and 204 come without a body; anything else that is no JSON came from somebody else on the way.
        return Accepted() if status in (202, 204) or not response.text.strip() else Ambiguous(f"{status}: the answer is not JSON: {words}")
    if status == 401:
        return AuthExpired(f"401: {words}")
    if status == 403 and body is None:
        return Throttled(f"403: this address is blocked for too many requests: {words}", BLOCKED_PAUSE_S)
    if status in (402, 403):
        return Throttled(f"{status}: {words}", REFUSED_PAUSE_S)
    if status >= 500:
        reason = f"{status}: {words}"
        return Retry(reason, response.retry_after_s) if is_read else Ambiguous(reason)
    if 300 <= status < 400:
        return AuthExpired(f"the address redirects (to {response.headers.get('location', '?')[:100]}): enter the account's own address")
    if status == 404 and body is None:
        return AuthExpired("404: there is no such account at this address")
    return Problem(status, body or {"detail": words})


def error_words(body: Mapping[str, Any]) -> str:
    """problem+json in words: its detail, and every field that it refuses with the reason."""
    found = [str(body.get("detail") or body.get("title") or "")]
    found += [str(body["hint"])] if body.get("hint") else []
    found += [f"{path}: {text}" for _, path, text in field_errors(body)]
    errors = body.get("errors")
    found += [str(item.get("detail") or item.get("title") or "") for item in errors if isinstance(item, Mapping)] if isinstance(errors, list) else []
    return "; ".join(text for text in found if text)[:500]


def field_errors(body: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """`validation-errors` as (request_id, path, words)."""
    found: list[tuple[str, str, str]] = []
    listed = body.get("validation-errors")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, Mapping):
            errors = item.get("errors")
            for error in errors if isinstance(errors, list) else []:
                if isinstance(error, Mapping):
                    words = " ".join(str(error[name]) for name in ("code", "detail") if error.get(name))
                    found.append((str(item.get("request_id", "")), str(error.get("path", "?")), words))
    return found


def names_a_user(answer: Answer) -> bool:
    """Whether nothing but users was refused. Pure."""
    return isinstance(answer, Problem) and bool(paths := {path.rpartition(".")[2] for _, path, _ in field_errors(answer.body)}) and paths <= USERS


def without_users(item: Any) -> Any:
    """The same item in nobody's name, with all that is inside of it. Pure."""
    if isinstance(item, Mapping):
        return {name: without_users(value) for name, value in item.items() if name not in USERS}
    return [without_users(one) for one in item] if isinstance(item, (list, tuple)) else item


def embedded(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The items of `_embedded.{name}`; an empty list where there are none, or where it is no list."""
    within = body.get("_embedded")
    items = within.get(name) if isinstance(within, Mapping) else None
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def as_outcome(answer: Answer) -> Outcome:
    """What did not succeed, as the dispatcher takes it."""
    assert not isinstance(answer, Accepted)
    return answer.outcome if isinstance(answer, Problem) else answer


def unseen(answer: Answer) -> Outcome:
    """What came of a look that failed while something is searched for: later again, for nothing is known by it."""
    outcome = as_outcome(answer)
    if isinstance(outcome, Retry):
        return Throttled(outcome.reason, outcome.after_s or LOOK_AGAIN_S)
    return Ambiguous(outcome.reason) if isinstance(outcome, Rejected) else outcome


def _body(response: Response) -> Mapping[str, Any] | None:
    try:
        body = response.json()
    except ValueError:
        return None
    if isinstance(body, list):  # leads/complex answers so
        return {"items": body}
    return body if isinstance(body, dict) else None
