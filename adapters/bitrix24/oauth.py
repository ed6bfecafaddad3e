"""Bitrix24's OAuth 2.0: the way to the consent page and back, and new tokens when the portal says that the old one is past.

An access token lives an hour, a refresh token 180 days and once. The vendor blocks applications that renew without need: it is done only when a
request was answered `expired_token`, by one daemon at a time; the others find the new token in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from adapters.base import Connection
from adapters.bitrix24.config import Bitrix24Settings
from adapters.bitrix24.limits import OAUTH
from adapters.http import OverLimit, Unanswered, Unreachable
from daemon.model.crm import Registered
from daemon.model.delivery import AuthExpired, Outcome, Retry, Throttled

_ALL_NEEDED = ("access_token", "refresh_token", "client_endpoint")


@dataclass(frozen=True, slots=True)
class Access:
    """Where methods are called and with what; `token` None for a webhook. `user`: in whose name."""

    base: str
    token: str | None
    user: str | None

    @staticmethod
    def of(tokens: Mapping[str, Any]) -> Access:
        base = str(tokens["client_endpoint"])
        return Access(base if base.endswith("/") else base + "/", str(tokens["access_token"]), _text(tokens.get("user_id")))


def host_of(url: str) -> str:
    """The host, and the port where it is not the scheme's own."""
    parts = urlsplit(url)
    return parts.netloc.lower().removesuffix(":443" if parts.scheme == "https" else ":80")


def consent_url(settings: Bitrix24Settings, state: str) -> str:
    """The portal's consent page. Raises ValueError. The address to come back to stands in the application's card at the portal."""
    if not settings.client_id or settings.client_secret is None:
        raise ValueError("client_id and client_secret of the portal's local application are missing")
    return f"{settings.portal}/oauth/authorize/?{urlencode({'client_id': settings.client_id, 'state': state})}"


async def consented(connection: Connection, answer: Mapping[str, str]) -> Registered:
    """Exchanges the code, which lives 30 seconds, or takes the tokens that the portal's installation form brings; keeps them when they are this
    portal's."""
    settings: Bitrix24Settings = connection.settings
    if settings.client_id is None or settings.client_secret is None:
        return Registered(False, "client_id and client_secret of the portal's local application are missing")
    if brought := _installed(answer, settings):
        tokens: Mapping[str, Any] | Outcome = brought
    elif answer.get("code"):
        tokens = await _exchange(connection, answer.get("server_domain"), {"grant_type": "authorization_code", "code": answer["code"]})
    else:
        return Registered(False, f"the portal gave no code: {(answer.get('error_description') or answer.get('error') or 'no reason said')[:200]}")
    if not isinstance(tokens, Mapping):
        return Registered(False, getattr(tokens, "reason", "no tokens"))
    if host_of(str(tokens["client_endpoint"])) != host_of(settings.portal):
        return Registered(False, f"another portal answered: {host_of(str(tokens['client_endpoint']))[:100]}")
    if brought and (problem := await _proved(connection, tokens)):
        return Registered(False, problem)
    user = await _user_of(connection, tokens)
    async with connection.tokens.lock():
        await connection.tokens.save(_kept(tokens, settings, {"user_id": user} if user else {}))
    return Registered(True, "connected", proof=str(tokens["application_token"]) if tokens.get("application_token") else None)


async def renew(connection: Connection, stale: str) -> Access | Outcome:
    """New tokens in place of `stale`, unless somebody has renewed them meanwhile."""
    settings: Bitrix24Settings = connection.settings
    async with connection.tokens.lock():
        stored = await connection.tokens.load() or {}
        if stored.get("access_token") not in (None, stale):
            return Access.of(stored)
        if not stored.get("refresh_token"):
            return AuthExpired("there is no refresh token: connect again")
        connection.http.mask = [*connection.http.mask, str(stored["refresh_token"])]
        tokens = await _exchange(connection, stored.get("server_endpoint"), {"grant_type": "refresh_token", "refresh_token": stored["refresh_token"]})
        if not isinstance(tokens, Mapping):
            return tokens
        kept = _kept(tokens, settings, stored)
        await connection.tokens.save(kept)
    return Access.of(kept)


async def _exchange(connection: Connection, server: Any, grant: Mapping[str, Any]) -> Mapping[str, Any] | Outcome:
    settings: Bitrix24Settings = connection.settings
    assert settings.client_secret is not None
    query = {"client_id": str(settings.client_id), "client_secret": settings.client_secret.get_secret_value(), **grant}
    url = f"{settings.token_server(str(server) if server else None)}/oauth/token/"
    try:
        response = await connection.http.request("GET", url, bucket=OAUTH, query=query, private=True)
        body = response.json()
    except (Unreachable, Unanswered, ValueError) as error:
        return Retry(f"the token server does not answer: {str(error)[:200]}")
    except OverLimit as error:
        return Throttled(str(error), error.after_s, own_kind=True)
    if response.status >= 500:
        return Retry(f"the token server answers {response.status}")
    if isinstance(body, Mapping) and all(isinstance(body.get(name), str) and body[name] for name in _ALL_NEEDED) and "error" not in body:
        connection.http.mask = [*connection.http.mask, body["access_token"], body["refresh_token"]]
        return body
    said = body if isinstance(body, Mapping) else {}  # an error comes inside a 200 too
    words = ": ".join(str(said[name])[:200] for name in ("error", "error_description") if said.get(name))
    return AuthExpired(f"the token server refuses ({words or response.status}): connect again")


def _installed(answer: Mapping[str, str], settings: Bitrix24Settings) -> Mapping[str, Any] | None:
    """Tokens as an application opened in the portal's frame gets them (AUTH_ID …), or as the event ONAPPINSTALL brings them (auth[…])."""
    if answer.get("AUTH_ID") and answer.get("REFRESH_ID"):
        scheme = "http" if answer.get("PROTOCOL") == "0" else "https"
        return {
            "access_token": answer["AUTH_ID"], "refresh_token": answer["REFRESH_ID"], "client_endpoint": f"{scheme}://{answer.get('DOMAIN', '')}/rest/",
            "server_endpoint": answer.get("SERVER_ENDPOINT"), "member_id": answer.get("member_id"), "application_token": answer.get("APPLICATION_TOKEN"),
            "expires_in": answer.get("AUTH_EXPIRES"),
        }  # fmt: skip
    if answer.get("auth[access_token]") and answer.get("auth[refresh_token]"):
        names = (*_ALL_NEEDED, "server_endpoint", "member_id", "user_id", "application_token", "expires_in")
        return {"client_endpoint": f"{settings.portal}/rest/", **{name: answer[f"auth[{name}]"] for name in names if f"auth[{name}]" in answer}}
    return None


async def _proved(connection: Connection, tokens: Mapping[str, Any]) -> str:
    """Tokens that somebody brought are believed when the portal itself takes them; gives what is wrong, or nothing."""
    connection.http.mask = [*connection.http.mask, str(tokens["access_token"]), str(tokens["refresh_token"])]
    try:
        response = await connection.http.request("POST", f"{Access.of(tokens).base}app.info.json", bucket=OAUTH, body={"auth": tokens["access_token"]})
        result = response.json().get("result")
    except (Unreachable, Unanswered, OverLimit, ValueError, AttributeError) as error:
        return f"the portal could not be asked about the tokens: {str(error)[:200]}"
    settings: Bitrix24Settings = connection.settings
    code = result.get("CODE") or result.get("client_id") if isinstance(result, Mapping) else None
    return "" if response.status == 200 and code == settings.client_id else "the portal does not know these tokens as this application's"


async def _user_of(connection: Connection, tokens: Mapping[str, Any]) -> str | None:
    """Who gave the access: the first exchange does not say."""
    try:
        response = await connection.http.request("POST", f"{Access.of(tokens).base}user.current.json", bucket=OAUTH, body={"auth": tokens["access_token"]})
        result = response.json().get("result")
    except (Unreachable, Unanswered, OverLimit, ValueError, AttributeError):
        return None
    return _text(result.get("ID")) if isinstance(result, Mapping) else None


def _kept(tokens: Mapping[str, Any], settings: Bitrix24Settings, former: Mapping[str, Any]) -> dict[str, Any]:
    names = (*_ALL_NEEDED, "server_endpoint", "member_id", "user_id", "scope", "expires_in")
    merged = {**former, "expires_in": None, **{name: tokens[name] for name in names if tokens.get(name)}}
    return {**merged, "client_id": settings.client_id}


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).isdecimal() else None
