"""RetailCRM's settings, declared once."""

from __future__ import annotations

import zoneinfo
from typing import Any

from pydantic import Field, SecretStr, field_validator

from daemon.model.integration import CrmUrl, IntegrationSettings


class RetailCrmSettings(IntegrationSettings):
    """One account. `timezone`: the zone of the account's times; null: the enterprise's."""

    domain: CrmUrl = Field(description="The account's full address, like https://example.retailcrm.ru")
    api_key: SecretStr = Field(min_length=1, max_length=256)
    module_code: str = Field(default="vochi-telephony", pattern=r"^[a-z0-9-]{1,64}$")
    module_name: str = Field(default="Vochi-CRM", min_length=1, max_length=100)
    timezone: str | None = None
    accept_number_as_client_id: bool = False

    @field_validator("domain", mode="before")
    @classmethod
    def _with_scheme(cls, value: Any) -> Any:
        return f"https://{value}" if isinstance(value, str) and value and "://" not in value else value

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().isascii() or not value.get_secret_value().isprintable():
            raise ValueError("contains characters that an API key cannot have")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                zoneinfo.ZoneInfo(value)
            except (KeyError, ValueError, OSError):
                raise ValueError("not a time zone, like Europe/Moscow") from None
        return value
