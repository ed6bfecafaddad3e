"""Bitrix24's settings, declared once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from daemon.model.integration import CrmUrl, IntegrationSettings, UrlCheck

OAUTH_SERVERS = ("https://oauth.bitrix24.tech", "https://oauth.bitrix.info")  # the vendor's two regions
_NEAR = (".ru", ".by", ".kz")  # portals of these zones are served by the first of them
_WEBHOOK = re.compile(r"(https?://[^/\s?#@]+)/rest/(\d{1,12})/([A-Za-z0-9]{1,128})/?", re.ASCII)


def _webhook(value: SecretStr, info: ValidationInfo) -> SecretStr:
    found = _WEBHOOK.fullmatch(value.get_secret_value().strip())
    if found is None:
        raise ValueError("is not an inbound webhook's address, like https://example.bitrix24.ru/rest/1/abc123/")
    check: UrlCheck | None = (info.context or {}).get("egress")
    problem = check.problem_with(found[1]) if check is not None else None
    if problem:
        raise ValueError(problem)
    return SecretStr(found[0].rstrip("/"))


# A secret, for its last part is the key.
WebhookUrl = Annotated[SecretStr, Field(min_length=1, max_length=500), AfterValidator(_webhook)]


class Bitrix24Settings(IntegrationSettings):
    """One portal: by an inbound webhook, by a local application (OAuth 2.0), or both; with an application that was consented to,
    the webhook rests."""

    inbound_tokens: ClassVar[Mapping[str, tuple[str, ...]]] = {"application_token": ("application_token",)}
    stand_ins: ClassVar[Mapping[str, str]] = {"webhook_url": "https://portal.invalid/rest/1/lost"}
    makes: ClassVar[tuple[str, ...]] = ("lead", "contact", "task", "nothing")

    webhook_url: WebhookUrl | None = Field(default=None, description="Like https://example.bitrix24.ru/rest/1/abc123/")
    domain: CrmUrl | None = Field(default=None, description="Like https://example.bitrix24.ru; for a local application without a webhook")
    client_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,100}$", description="Of the local application")
    client_secret: SecretStr | None = None
    application_token: SecretStr | None = Field(default=None, description="Of the outbound webhook: by it the portal's events find their enterprise")
    oauth_server: CrmUrl | None = Field(default=None, description="Empty: one of the vendor's two, as the portal says")
    default_user: str | None = Field(default=None, pattern=r"^\d{1,12}$", description="Whose calls are that nobody took; empty: who gave the access")

    @field_validator("application_token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (8 <= len(value.get_secret_value()) <= 500 and value.get_secret_value().isprintable()):
            raise ValueError("has 8 to 500 printable characters")
        return value

    @model_validator(mode="after")
    def _has_a_way_in(self) -> Self:
        if self.webhook_url is None and not (self.domain and self.client_id and self.client_secret):
            raise ValueError("webhook_url, or domain with client_id and client_secret, is needed")
        if self.webhook_url is not None and self.domain is not None and urlsplit(self.domain).netloc != urlsplit(self.portal).netloc:
            raise ValueError("domain and webhook_url name different portals")
        return self

    @field_validator("rules")
    @classmethod
    def _possible_here(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        wrong = next((rule.do for rule in value if getattr(rule, "do", "") not in cls.makes), None)  # type: ignore[attr-defined]
        if wrong:
            raise ValueError(f"{wrong} cannot be made in Bitrix24; there are: {', '.join(cls.makes)}")
        return value

    @property
    def portal(self) -> str:
        """The portal's scheme and host."""
        if self.webhook_url is None:
            return self.domain or ""
        parts = urlsplit(self.webhook_url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def is_russian(self) -> bool:
        """Whether the portal's people read Russian, by its zone."""
        return (urlsplit(self.portal).hostname or "").endswith(_NEAR)

    @property
    def webhook_user(self) -> str | None:
        """The user in whose name the webhook acts."""
        return self.webhook_url.get_secret_value().split("/")[-2] if self.webhook_url is not None else None

    def token_server(self, named: str | None) -> str:
        """The server that exchanges tokens. `named`: the one that the portal or the last tokens named; it is handed the client's secret, so
        that only the vendor's own are believed."""
        if self.oauth_server is not None:
            return self.oauth_server
        host = urlsplit(named if named and "://" in named else f"https://{named}").hostname if named else None
        known = next((server for server in OAUTH_SERVERS if urlsplit(server).hostname == host), None)
        return known or OAUTH_SERVERS[0 if self.is_russian else 1]
