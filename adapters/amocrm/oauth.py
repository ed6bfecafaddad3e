"""How vochid gets into an account and stays there: consent, a token of a day, its renewal.

A refresh token works once and lasts three months. So one daemon exchanges at a time, the new pair is stored before it is used, and
tokens are renewed well ahead of their end, calls or no calls: when a new pair is lost on the way (a crash between the answer and the
store), the former access token still has hours in which a person can consent again. Times are the CRM's own.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from adapters.amocrm.config import AmoCrmSettings
from adapters.amocrm.limits import API, EXCHANGE_S
from adapters.base import Connection
from adapters.http import CrmHttp, OverLimit, Response, Unanswered, Unreachable
from daemon.model.crm import Registered
from daemon.model.delivery import AuthExpired, Outcome, Retry, Throttled

Tokens = Mapping[str, Any]  # domain, access_token, refresh_token, expires_at (Unix s), raw; refused: why a person must act
AHEAD = 0.25  # of a token's life, and at least an hour: renewed when less than this is left
MIN_AHEAD_S = 3_600.0
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?", re.ASCII)
LOST = "; the daemon had stopped in the middle of an exchange, its answer was lost"


def consent_url(settings: AmoCrmSettings, state: str) -> str:
    """amoCRM's page on which an administrator consents; the way back stands in the integration's card there. Raises ValueError."""
    if settings.client_id is None or settings.client_secret is None:
        raise ValueError("enter client_id and client_secret of the integration first")
    return f"{settings.consent_page}?{urlencode({'client_id': settings.client_id, 'state': state, 'mode': 'popup'}, quote_via=quote)}"


async def consented(connection: Connection, answer: Mapping[str, str], callback_url: str) -> Registered:
    """Exchanges the code that the browser brought. The secret goes to this account's host and to no other, whatever `referer` says."""
    settings: AmoCrmSettings = connection.settings
    if problem := problem_with(answer, settings):
        return Registered(False, problem)
    grant = {"grant_type": "authorization_code", "code": answer["code"]}
    async with connection.tokens.lock():
        try:
            response = await _ask(connection, connection.http, grant, settings.redirect_uri or callback_url)
        except (Unreachable, Unanswered, OverLimit) as error:
            return Registered(False, f"amoCRM did not answer: {error}: connect again")
        tokens = read_tokens(response, settings.host)
        if tokens is None:
            return Registered(False, f"amoCRM refused the code: {_words(response)}")
        await connection.tokens.save({**tokens, "redirect_uri": settings.redirect_uri or callback_url})
    return Registered(True, f"connected to {settings.host}")


def problem_with(answer: Mapping[str, str], settings: AmoCrmSettings) -> str | None:
    """What is wrong with the parameters that came back, or None. Pure."""
    if answer.get("error"):
        return f"access was not given at amoCRM: {answer['error'][:100]}"
    if not answer.get("code"):
        return "amoCRM sent no code"
    if answer.get("client_id") not in (None, "", settings.client_id):
        return "the answer is for another integration's client_id"
    referer = answer.get("referer", "").removeprefix("https://").removeprefix("http://").rstrip("/").lower()
    if referer != settings.host:
        return f"access was given to the account {referer[:100] or '?'}, and the settings name {settings.host}"
    return None


async def current(connection: Connection) -> str | None:
    """The access token to use: the long-lived one, else the newest stored; None when nobody consented yet."""
    settings: AmoCrmSettings = connection.settings
    if settings.long_lived_token is not None:
        return settings.long_lived_token.get_secret_value()
    tokens = await connection.tokens.load()
    return str(tokens["access_token"]) if is_ours(tokens, settings) and tokens else None


def is_ours(tokens: Tokens | None, settings: AmoCrmSettings) -> bool:
    """Whether these tokens are this account's: after a change of base_url the former ones open nothing here."""
    return bool(tokens and tokens.get("access_token") and tokens.get("domain") == settings.host)


async def after_refusal(connection: Connection, used: str, *, may_exchange: bool) -> str | Outcome | None:
    """What follows when `used` was answered 401: another token to repeat the request with once, what came instead of one, or None
    where there is nothing else to try."""
    if connection.settings.long_lived_token is not None:
        return None
    if not may_exchange:
        newest = await current(connection)
        return newest if newest != used else None
    async with connection.tokens.lock():
        tokens = await connection.tokens.load()
        if not is_ours(tokens, connection.settings) or tokens is None:
            return None
        if tokens["access_token"] != used:
            return str(tokens["access_token"])
        return await _exchange(connection, tokens)


def renew_at(tokens: Tokens) -> float | None:
    """When a pair is to be renewed although it still works. Pure."""
    if tokens.get("refused") or not tokens.get("refresh_token") or not tokens.get("expires_at"):
        return None
    lives_s = float((tokens.get("raw") or {}).get("expires_in") or 86_400)
    return float(tokens["expires_at"]) - max(lives_s * AHEAD, min(MIN_AHEAD_S, lives_s / 2))


async def renew(connection: Connection, seen: Tokens) -> Registered:
    """Exchanges `seen`, unless somebody else did meanwhile."""
    if connection.settings.long_lived_token is not None:
        return Registered(True, "the long-lived token needs no renewal")
    async with connection.tokens.lock():
        tokens = await connection.tokens.load()
        if tokens is None or tokens.get("refresh_token") != seen.get("refresh_token"):
            return Registered(True, "renewed by somebody else")
        done = await _exchange(connection, tokens)
    if isinstance(done, str):
        return Registered(True)
    return Registered(False, getattr(done, "reason", ""), is_unclear=not isinstance(done, AuthExpired))


async def _exchange(connection: Connection, tokens: Tokens) -> str | Outcome:
    """A new pair for the refresh token; under the lock. The new access token, or what came instead."""
    settings: AmoCrmSettings = connection.settings
    if tokens.get("refused"):
        return AuthExpired(str(tokens["refused"]))
    if settings.client_id is None or settings.client_secret is None:
        return AuthExpired("client_id and client_secret are missing: the token cannot be renewed")
    # Written down before it is asked: who finds it refused afterwards knows why.
    was_cut_off = bool(tokens.get("exchanging"))
    await connection.tokens.save({**tokens, "exchanging": True})
    grant = {"grant_type": "refresh_token", "refresh_token": str(tokens["refresh_token"])}
    before = {key: value for key, value in tokens.items() if key != "exchanging"}
    try:
        response = await _ask(connection, connection.http.extended(EXCHANGE_S), grant, settings.redirect_uri or str(tokens.get("redirect_uri", "")))
    except Unanswered as error:  # it may have been exchanged; asking again with the same one tells
        return Retry(f"the token could not be renewed: {error}")
    except (Unreachable, OverLimit) as error:
        if not was_cut_off:
            await connection.tokens.save(before)
        return Throttled(str(error), error.after_s) if isinstance(error, OverLimit) else Retry(f"the token could not be renewed: {error}")
    new = read_tokens(response, settings.host)
    if new is not None:
        await connection.tokens.save({"redirect_uri": tokens.get("redirect_uri"), **new})
        return str(new["access_token"])
    if response.status in (400, 401):
        reason = f"amoCRM does not renew the access: {_words(response)}{LOST if was_cut_off else ''}: connect again"
        await connection.tokens.save({**before, "refused": reason})
        return AuthExpired(reason)
    await connection.tokens.save(before)
    return Retry(f"the token could not be renewed: {response.status}: {_words(response)}", response.retry_after_s)


async def _ask(connection: Connection, http: CrmHttp, grant: Mapping[str, str], redirect_uri: str) -> Response:
    settings: AmoCrmSettings = connection.settings
    secret = settings.client_secret.get_secret_value() if settings.client_secret else ""
    body = {"client_id": settings.client_id, "client_secret": secret, **grant, "redirect_uri": redirect_uri}
    # In mode observe too: without credentials there is nothing to observe.
    line = http.extended(0)
    line.observe = False
    response = await line.request("POST", f"{settings.base_url}/oauth2/access_token", bucket=API, body=body, private=True)
    return response


def read_tokens(response: Response, domain: str) -> dict[str, Any] | None:
    """A pair out of the token endpoint's answer; None when it is none. Pure."""
    body = _json(response)
    access, refresh = body.get("access_token"), body.get("refresh_token")
    if response.status != 200 or not isinstance(access, str) or not access or not isinstance(refresh, str) or not refresh:
        return None
    claims = claims_of(access)
    lives_s = _number(body.get("expires_in")) or 0.0
    began = _number(body.get("server_time")) or _date(response)
    expires_at = _number(claims.get("exp")) or (began + lives_s if began else None)
    raw = {key: value for key, value in body.items() if key not in ("access_token", "refresh_token")}
    return {
        "domain": domain, "access_token": access, "refresh_token": refresh, "expires_at": expires_at,
        "raw": {**raw, "account_id": claims.get("account_id")},
    }  # fmt: skip


async def renamed(connection: Connection) -> str | None:
    """The host that the account has by now, when it is another one than the settings name: the vendor's own host knows it by the token.
    None also when nobody can be asked."""
    settings: AmoCrmSettings = connection.settings
    token, page = await current(connection), urlsplit(settings.consent_page)
    if token is None:
        return None
    headers, line = {"Authorization": f"Bearer {token}"}, connection.http
    try:
        response = await line.request("GET", f"{page.scheme}://{page.netloc}/oauth2/account/subdomain", bucket=API, headers=headers)
    except (Unanswered, Unreachable, OverLimit):
        return None
    domain = _json(response).get("domain") if response.status == 200 else None
    return domain.lower() if isinstance(domain, str) and _HOST.fullmatch(domain) and domain.lower() != settings.host else None


def claims_of(token: str) -> Mapping[str, Any]:
    """A JWT's claims, unchecked: it is what the CRM itself gave, and nothing is decided by them but when to renew. Pure."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


def _words(response: Response) -> str:
    body = _json(response)
    said = [str(body[name]) for name in ("hint", "detail", "title") if body.get(name)]
    return f"{response.status}: {'; '.join(said)[:300] or 'no reason given'}"


def _json(response: Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None


def _date(response: Response) -> float | None:
    try:
        return parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        return None
