"""Bitrix24 over HTTP: calling a method or a batch, and what each answer means (docs/adapters/bitrix24.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from adapters import http
from adapters.base import Connection
from adapters.bitrix24.config import Bitrix24Settings
from adapters.bitrix24.limits import OPERATING_S, RECORD, SYNC
from adapters.bitrix24.oauth import Access, host_of, renew
from adapters.http import OverLimit, Response, Unanswered, Unreachable
from daemon.model.delivery import Ambiguous, AuthExpired, Outcome, Rejected, Retry, Throttled

THROTTLE_PAUSE_S = 2.0  # four places drain meanwhile
OPERATING_PAUSE_S = 60.0  # run time is counted by the minute; when the answer does not say when it is given back
MAX_WORDS = 500
EXPIRED = "EXPIRED_TOKEN"

# Somebody must act at the portal: enter other credentials, grant rights, pay, lift a block.
_PERSON = frozenset(
    {"NO_AUTH_FOUND", "INVALID_CREDENTIALS", "INSUFFICIENT_SCOPE", "USER_ACCESS_ERROR", "ACCESS_DENIED", "WRONG_AUTH_TYPE", "OVERLOAD_LIMIT",
     "PORTAL_DELETED", "INVALID_TOKEN", "AUTHORIZATION_ERROR", "APPLICATION_NOT_FOUND", "ERROR_OAUTH", "PAYMENT_REQUIRED", "METHOD_CONFIRM_WAITING",
     "METHOD_CONFIRM_DENIED", "NOT_INSTALLED", EXPIRED, "ACCESS_ERROR", "ALLOWED_ONLY_INTRANET_USER", "INVALID_SCOPE", "INVALID_REQUEST"}
)  # fmt: skip
_ADVICE = {
    "WRONG_AUTH_TYPE": "this portal wants a local application for it: enter client_id and client_secret and connect",
    "INSUFFICIENT_SCOPE": "grant the scopes telephony, crm, user and, for tasks, task",
    "INVALID_REQUEST": "the portal wants https",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A `result`, and what list methods say beside it."""

    result: Any
    next: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Oversized(Ambiguous):
    """The answer was longer than one may be: to ask for less at a time helps."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The access token is past its hour; nothing was executed."""


Answer = Accepted | Outcome


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of an earlier command's result, filled in by the portal."""

    command: str
    path: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """One method call; `name` is what others in the same batch refer to."""

    name: str
    method: str
    params: Mapping[str, Any]


class Portal:
    """One portal for one attempt."""

    def __init__(self, connection: Connection) -> None:
        self._settings: Bitrix24Settings = connection.settings
        self._http = connection.http
        self._connection = connection
        if self._settings.webhook_url is not None:
            self._mask(self._settings.webhook_url.get_secret_value().rpartition("/")[2])

    async def call(self, method: str, params: Mapping[str, Any], bucket: str) -> Answer:
        """One method."""
        return await self._ask(method, {key: value for key, value in params.items() if value is not None}, bucket)

    async def run(self, commands: Sequence[Command], bucket: str) -> Mapping[str, Answer] | Outcome:
        """Several methods in one request, in order; one alone goes without a batch. Gives an answer for each by name, or what became of the
        whole request. A command that the portal did not come to is to be tried again."""
        if len(commands) == 1:
            only = commands[0]
            return {only.name: await self.call(only.method, only.params, bucket)}
        sent = {command.name: f"{command.method}?{encode(command.params)}" for command in commands}
        answer = await self._ask("batch", {"halt": 0, "cmd": sent}, bucket)
        return self._read_batch(answer.result, commands, bucket) if isinstance(answer, Accepted) else answer

    async def own_user(self) -> str | None:
        """The user in whose name we speak; costs no request."""
        access = await self._access()
        return access.user if isinstance(access, Access) else self._settings.webhook_user

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, params: Mapping[str, Any], bucket: str) -> Answer:
        access = await self._access()
        if not isinstance(access, Access):
            return access
        answer = await self._send(access, method, params, bucket)
        if isinstance(answer, Expired) and access.token is not None:
            renewed = await renew(self._connection, access.token)
            if not isinstance(renewed, Access):
                return renewed
            self._mask(renewed.token or "")
            answer = await self._send(renewed, method, params, bucket)
        return AuthExpired("the portal takes the credentials no longer: connect again") if isinstance(answer, Expired) else answer

    async def _access(self) -> Access | Outcome:
        settings = self._settings
        if settings.client_id is not None and (tokens := await self._connection.tokens.load()) is not None:
            access = Access.of(tokens)
            if host_of(access.base) == host_of(settings.portal) and tokens.get("client_id") == settings.client_id:
                self._mask(access.token or "")
                return access
        if settings.webhook_url is not None:
            return Access(settings.webhook_url.get_secret_value() + "/", None, settings.webhook_user)
        return AuthExpired("nobody has connected the application yet: press the button on the integration's card")

    async def _send(self, access: Access, method: str, params: Mapping[str, Any], bucket: str) -> Answer | Expired:
        body = {**params, "auth": access.token} if access.token is not None else dict(params)
        try:
            response = await self._http.request("POST", f"{access.base}{method}.json", bucket=bucket, body=body)
        except Unreachable as error:
            return Retry(str(error))
        except Unanswered as error:
            return Oversized(str(error)) if isinstance(error, http.Oversized) else Ambiguous(str(error))
        except OverLimit as error:
            return Throttled(str(error), error.after_s, own_kind=True)
        answer, hold_s = interpret(response)
        if hold_s is not None and (bucket in (RECORD, SYNC) or isinstance(answer, Throttled)):
            self._http.hold(bucket, hold_s)
        return answer

    def _read_batch(self, body: Any, commands: Sequence[Command], bucket: str) -> Mapping[str, Answer] | Outcome:
        if not isinstance(body, Mapping):
            return Ambiguous("the batch's answer has no results")
        results, errors = _map(body.get("result")), _map(body.get("result_error"))
        times = _map(body.get("result_time"))
        answers: dict[str, Answer] = {}
        for command in commands:
            name, time = command.name, _map(times.get(command.name))
            if name in errors:
                error = _map(errors[name])
                answers[name] = judge(None, str(error.get("error") or ""), str(error.get("error_description") or ""), time)
                held = answers[name]
                if isinstance(held, Throttled) and held.own_kind:
                    self._http.hold(bucket, held.after_s)
            elif name in results:
                answers[name] = Accepted(results[name], _number(_map(body.get("result_next")).get(name)), _number(_map(body.get("result_total")).get(name)))
            else:
                answers[name] = Retry("the portal did not come to it")
        if bucket in (RECORD, SYNC) and (hold := max((_hold_s(_map(time)) or 0.0 for time in times.values()), default=0.0)):
            self._http.hold(bucket, hold)
        return answers

    def _mask(self, secret: str) -> None:
        if secret and secret not in self._http.mask:
            self._http.mask = [*self._http.mask, secret]


def interpret(response: Response) -> tuple[Answer | Expired, float | None]:
    """What an answer means, and for how many seconds this kind of thing should rest, if at all. Errors come inside a 200 too. Pure."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, Mapping):
        return _not_json(response), None
    time = _map(body.get("time"))
    if "error" in body:
        code = str(body.get("error") or "")
        if code.upper() == EXPIRED:
            return Expired(), None
        answer = judge(response.status, code, str(body.get("error_description") or ""), time)
        return answer, answer.after_s if isinstance(answer, Throttled) and answer.own_kind else None
    if 200 <= response.status < 300 and "result" in body:
        return Accepted(body["result"], _number(body.get("next")), _number(body.get("total"))), _hold_s(time)
    return (Retry if response.status >= 500 else Rejected)(f"{response.status}: {response.text.strip()[:80]}"), None


def judge(status: int | None, code: str, words: str, time: Mapping[str, Any]) -> Outcome:
    """The one place that decides what an error means; `status` None inside a batch. Codes come in either case, and empty; then the status
    and the words count. Pure."""
    name, text = code.strip().upper(), _plain(words or code)
    said = f"{code}: {text}" if code and words else text or f"status {status}"
    if name == "QUERY_LIMIT_EXCEEDED":
        return Throttled(said, THROTTLE_PAUSE_S)
    if name == "OPERATION_TIME_LIMIT" or (status == 429 and name not in _PERSON):
        return Throttled(said, _until_reset_s(time) or OPERATING_PAUSE_S, own_kind=True)
    if name in _PERSON or status in (401, 403):
        return AuthExpired("; ".join(filter(None, [said, _ADVICE.get(name)])))
    if name in ("INTERNAL_SERVER_ERROR", "ERROR_UNEXPECTED_ANSWER") or (status or 0) >= 500:
        return Retry(said)
    return Rejected(said)


def _not_json(response: Response) -> Outcome:
    start = response.text.strip()[:80]
    if response.status >= 500:
        return Throttled("503", response.retry_after_s) if response.status == 503 and response.retry_after_s else Retry(f"{response.status}: {start}")
    if response.status == 429:
        return Throttled("429", response.retry_after_s or THROTTLE_PAUSE_S)
    if 300 <= response.status < 400:
        return AuthExpired(f"the address redirects (to {response.headers.get('location', '?')[:100]}): enter the portal's own address")
    if response.status in (401, 403, 404, 410):
        return AuthExpired(f"{response.status}: there is no such portal or webhook at this address")
    return Ambiguous(f"the answer is not JSON: {start}") if response.status < 300 else Rejected(f"{response.status}: {start}")


def encode(params: Mapping[str, Any]) -> str:
    """Parameters as PHP reads them from a query: nested names in brackets. What is None is left out. Pure."""
    return "&".join(f"{quote(name, safe='[]')}={quote(value, safe='')}" for name, value in _flat(params))


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _flat(item, f"{name}[{key}]" if name else str(key))]
    if isinstance(value, (list, tuple)):
        return [pair for index, item in enumerate(value) for pair in _flat(item, f"{name}[{index}]")]
    if isinstance(value, Ref):
        return [(name, f"$result[{value.command}]" + "".join(f"[{part}]" for part in value.path))]
    return [(name, str(int(value)) if isinstance(value, bool) else str(value))]


def _hold_s(time: Mapping[str, Any]) -> float | None:
    """How long to rest when a method has nearly used up its run time."""
    operating = time.get("operating")
    is_much = isinstance(operating, (int, float)) and operating >= OPERATING_S
    return (_until_reset_s(time) or OPERATING_PAUSE_S) if is_much else None


def _until_reset_s(time: Mapping[str, Any]) -> float | None:
    """From the portal's own clock to the moment at which it gives run time back; at most its ten minutes."""
    reset, now = time.get("operating_reset_at"), time.get("finish")
    if not isinstance(reset, (int, float)) or not isinstance(now, (int, float)):
        return None
    return min(600.0, max(1.0, reset - now))


def _map(value: Any) -> Mapping[str, Any]:
    """An object; PHP writes an empty one as []."""
    if isinstance(value, Mapping):
        return value
    return {str(index): item for index, item in enumerate(value)} if isinstance(value, list) else {}


def _plain(words: str) -> str:
    """Descriptions may carry HTML."""
    return words.replace("<br>", " ").replace("<br/>", " ").strip()[:MAX_WORDS]


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
