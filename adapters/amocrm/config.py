"""amoCRM's settings, declared once."""

from __future__ import annotations

from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from daemon.model.integration import CrmUrl, IntegrationSettings

ZONES = ("amocrm.ru", "kommo.com", "amocrm.com")
RUSSIAN_ZONE = "amocrm.ru"
OAUTH_URL = "https://www.amocrm.ru/oauth"
KOMMO_OAUTH_URL = "https://www.kommo.com/oauth"


class AmoCrmSettings(IntegrationSettings):
    """One account, reached with an integration's id and secret by consent, or with a long-lived token."""

    makes: ClassVar[tuple[str, ...]] = ("unsorted", "contact", "lead", "task", "nothing")

    base_url: CrmUrl = Field(description="The account's full address, like https://example.amocrm.ru or https://example.kommo.com")
    client_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,64}$", description="Of the integration that was made in the account")
    client_secret: SecretStr | None = Field(default=None, min_length=1, max_length=256)
    redirect_uri: str | None = Field(default=None, max_length=500, description="As the integration names it; empty: this daemon's own address")
    oauth_url: CrmUrl = OAUTH_URL
    long_lived_token: SecretStr | None = Field(default=None, min_length=1, max_length=4_000)
    source_name: str = Field(default="vochid", min_length=1, max_length=64, description="What calls are said to come from")
    pipeline_id: int | None = Field(default=None, ge=1, description="For incoming leads and leads; empty: the account's main one")
    journal_as: Literal["calls", "notes"] = "calls"
    client_in_phone: bool = False
    single_use_clicks: bool = False

    @field_validator("base_url", mode="before")
    @classmethod
    def _with_scheme(cls, value: Any) -> Any:
        return f"https://{value}" if isinstance(value, str) and value and "://" not in value else value

    @field_validator("base_url")
    @classmethod
    def _an_account(cls, value: str) -> str:
        parts = urlsplit(value)
        host = parts.hostname or ""
        if parts.path or parts.query:
            raise ValueError("only the account's address, like https://example.amocrm.ru, without a path")
        # Plain http goes only where the operator allows it: to a lab, which may be anywhere.
        if parts.scheme == "https" and not any(host.endswith(f".{zone}") for zone in ZONES):
            raise ValueError(f"is not an account's address: it ends in {', '.join('.' + zone for zone in ZONES)}")
        return value

    @field_validator("long_lived_token")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
            raise ValueError("contains characters that a token cannot have")
        return value

    @model_validator(mode="after")
    def _some_way_in(self) -> AmoCrmSettings:
        if self.long_lived_token is None and (self.client_id is None or self.client_secret is None):
            raise ValueError("either client_id and client_secret, or long_lived_token")
        return self

    @property
    def host(self) -> str:
        """The account's host, with its port where it has one, as `referer` and a token's issuer name it."""
        return urlsplit(self.base_url).netloc.lower()

    @property
    def is_russian(self) -> bool:
        """Whether the account's people read Russian; Kommo's read English."""
        return not self.host.endswith((".kommo.com", ".amocrm.com"))

    @property
    def consent_page(self) -> str:
        """Where administrators consent: Kommo has a page of its own."""
        return KOMMO_OAUTH_URL if self.oauth_url == OAUTH_URL and not self.is_russian else self.oauth_url

    def user_of(self, extension: str | None) -> int | None:
        """The CRM user who holds this extension."""
        if extension is None:
            return None
        return next((int(user) for user, held in self.user_extensions.items() if held == extension and user.isdecimal()), None)
