"""Consent and tokens of the sandbox: codes of 20 minutes, access tokens of a day, refresh tokens that work once within three months."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import jwt
from aiohttp import web

if TYPE_CHECKING:
    from lab.crm.amocrm import AmoCrmSandbox

CODE_S, ACCESS_S, REFRESH_S = 20 * 60, 86_400, 90 * 86_400
DISPOSABLE_S = 30 * 60
SIGNING_KEY = "the-sandbox-signs-its-own-tokens-with-this"
_REVOKED, _NO_REFRESH, _NO_CODE = "Token has been revoked", "Cannot decrypt the refresh token", "Authorization code has expired"


@dataclass
class Integration:
    """What was made in the account: its id and secret, and where the browser comes back to."""

    client_id: str = "2b9f3c1e-7a40-4f0e-9d55-0d6a8a1f0c11"
    client_secret: str = "sandbox-client-secret-0123456789"
    redirect_uri: str = ""


@dataclass
class Tokens:
    """By value, when each ends; a used or revoked refresh token stays known, so that it is told from garbage."""

    codes: dict[str, float] = field(default_factory=dict)
    access: dict[str, float] = field(default_factory=dict)
    refresh: dict[str, float] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    exchanges: int = 0


class OAuth:
    """The account's consent page and its token endpoint."""

    def __init__(self, box: AmoCrmSandbox) -> None:
        self._box = box
        self.integration = Integration()
        self.tokens = Tokens()

    def add_to(self, application: web.Application) -> None:
        application.router.add_get("/oauth", self._page)
        application.router.add_get("/oauth/", self._page)
        application.router.add_post("/-/consent", self._consented)
        application.router.add_post("/oauth2/access_token", self._token)
        application.router.add_get("/oauth2/account/subdomain", self._subdomain)

    async def _subdomain(self, request: web.Request) -> web.Response:
        """Where the account of this token is, on the vendor's own host."""
        if not self.is_valid(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            return self._refuse(401, _REVOKED)
        domain = self._box.switches.renamed_to or self._box.url.partition("//")[2]
        return web.json_response({"id": self._box.account.id, "subdomain": domain.partition(".")[0], "domain": domain, "top_level_domain": "ru"})

    def switched_off(self) -> dict[str, str]:
        """What the account sends to the integration's hook when somebody switches it off; its tokens end."""
        self.revoke()
        account, made = str(self._box.account.id), self.integration
        signature = hmac.new(made.client_secret.encode(), f"{made.client_id}|{account}".encode(), hashlib.sha256).hexdigest()
        return {"account_id": account, "client_uuid": made.client_id, "signature": signature}

    # -- tokens --------------------------------------------------------------------------------------------------------------------

    def long_lived(self, lives_s: float = 365 * 86_400) -> str:
        """A token as the integration's card makes it."""
        return self._access(lives_s)

    def pair(self) -> dict[str, Any]:
        """A new pair, as the token endpoint answers it."""
        refresh = f"def50200{secrets.token_hex(40)}"
        self.tokens.refresh[refresh] = self._box.clock() + REFRESH_S
        body: dict[str, Any] = {"token_type": "Bearer", "expires_in": ACCESS_S, "access_token": self._access(ACCESS_S), "refresh_token": refresh}
        return body | ({"server_time": int(self._box.clock())} if self._box.switches.server_time else {})

    def revoke(self) -> None:
        """The account's administrator switches the integration off: nothing of it works any more."""
        self.tokens.access.clear()
        self.tokens.spent |= self.tokens.refresh.keys()

    def is_valid(self, bearer: str) -> bool:
        return self.tokens.access.get(bearer, 0.0) > self._box.clock()

    def disposable(self, user: int, **more: Any) -> str:
        """What amoCRM's page sends along with a widget's request (X-Auth-Token). `more` overrides claims."""
        now, redirect = int(self._box.clock()), urlsplit(self.integration.redirect_uri)
        claims = {
            "iss": self._box.url, "aud": f"{redirect.scheme}://{redirect.netloc}", "jti": secrets.token_hex(16), "iat": now, "nbf": now,
            "exp": now + DISPOSABLE_S, "account_id": self._box.account.id, "subdomain": self._box.account.subdomain,
            "client_uuid": self.integration.client_id, "user_id": user, "is_admin": True, **more,
        }  # fmt: skip
        return jwt.encode(claims, self.integration.client_secret, algorithm="HS256")

    def _access(self, lives_s: float) -> str:
        now, host = int(self._box.clock()), urlsplit(self._box.url).netloc
        claims = {
            "aud": self.integration.client_id, "jti": secrets.token_hex(16), "iat": now, "nbf": now, "exp": int(now + lives_s), "sub": "7031001",
            "account_id": self._box.account.id, "base_domain": "amocrm.ru", "api_domain": host, "scopes": ["crm", "notifications"],
        }  # fmt: skip
        token = jwt.encode(claims, SIGNING_KEY, algorithm="HS256")
        self.tokens.access[token] = now + lives_s
        return token

    # -- over HTTP -----------------------------------------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.Response:
        """The consent page: one button. The way back is the integration's, whatever the address says."""
        if request.query.get("client_id") != self.integration.client_id:
            return web.Response(status=400, text="Unknown client_id")
        state = request.query.get("state", "")
        fields = "".join(f'<input type="hidden" name="{name}" value="{_quoted(value)}">' for name, value in {"state": state}.items())
        page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Access to your account</title><h1>Allow vochid?</h1>
            <form method="post" action="/-/consent">{fields}<button name="answer" value="allow">Allow</button>
            <button name="answer" value="deny">Deny</button></form>"""
        return web.Response(text=page, content_type="text/html")

    async def _consented(self, request: web.Request) -> web.Response:
        form = await request.post()
        return web.Response(status=302, headers={"Location": self.way_back(str(form.get("state", "")), is_allowed=form.get("answer") == "allow")})

    def way_back(self, state: str, *, is_allowed: bool = True, **more: str) -> str:
        """The address that the browser comes back with. `more` overrides parameters."""
        if not is_allowed:
            return f"{self.integration.redirect_uri}?{urlencode({'error': 'access_denied', 'state': state})}"
        code = f"def50200{secrets.token_hex(60)}"
        self.tokens.codes[code] = self._box.clock() + CODE_S
        told = {"code": code, "state": state, "referer": urlsplit(self._box.url).netloc, "client_id": self.integration.client_id, **more}
        return f"{self.integration.redirect_uri}?{urlencode(told)}"

    async def _token(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or request.content_type != "application/json":
            return self._refuse(400, "The request is missing a required parameter")
        if (body.get("client_id"), body.get("client_secret")) != (self.integration.client_id, self.integration.client_secret):
            return self._refuse(401, "")
        if body.get("redirect_uri") != self.integration.redirect_uri:
            return self._refuse(400, "redirect_uri mismatch")
        known, now = self.tokens, self._box.clock()
        if body.get("grant_type") == "authorization_code":
            if known.codes.pop(str(body.get("code")), 0.0) <= now:
                return self._refuse(400, _NO_CODE)
        elif body.get("grant_type") == "refresh_token":
            token = str(body.get("refresh_token"))
            if token not in known.refresh:
                return self._refuse(401, _NO_REFRESH)
            if token in known.spent or known.refresh[token] <= now:
                return self._refuse(401, _REVOKED)
            known.spent.add(token)
        else:
            return self._refuse(400, "The authorization grant type is not supported")
        known.exchanges += 1
        return self._box.answer(self.pair())

    def _refuse(self, status: int, hint: str) -> web.Response:
        self._box.refusals.append(f"{status} oauth: {hint or 'client'}")
        said = {
            "title": "Некорректный запрос",
            "type": "https://developers.amocrm.ru/v3/errors/OAuthProblemJson",
            "status": status,
            "detail": "В запросе ошибка",
        }
        return self._box.problem(status, {**said, **({"hint": hint} if hint else {})})


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
