"""The desk's settings, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from daemon.model.integration import CrmUrl, IntegrationSettings, Strict


class FromCalls(Strict):
    """Which calls become tickets where no rule speaks of them; what a call back makes of the ticket."""

    missed: bool = False
    voicemail: bool = False
    answered: bool = False
    called_back: Literal["closed", "in_progress", "nothing"] = "closed"


class TicketsSettings(IntegrationSettings):
    """One desk. `role`: the part that vochid plays; the other side is the other one. The token is the same in both directions."""

    inbound_tokens: ClassVar[Mapping[str, tuple[str, ...]]] = {"deploy_token": ("deploy_token", "previous_deploy_token")}
    rotates: ClassVar[Mapping[str, str]] = {"deploy_token": "previous_deploy_token"}
    makes: ClassVar[tuple[str, ...]] = ("ticket", "nothing")
    rules_by: ClassVar[tuple[str, ...]] = ("line", "direction", "answered")

    role: Literal["tma", "crm"] = Field(description="tma: vochid is the mini app's desk; crm: vochid is the CRM")
    remote_url: CrmUrl = Field(description="The other side's address; /api/integration/… is below it")
    deploy_token: SecretStr = Field(min_length=8, max_length=500, description="The same on both sides")
    previous_deploy_token: SecretStr | None = Field(default=None, min_length=8, max_length=500, description="Still taken until it is cleared")
    project: str = Field(default="tma", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    legacy: bool = Field(default=True, description="Take the predecessor's paths and shapes too")
    calls: FromCalls = FromCalls()
    language: Literal["ru", "en"] = Field(default="ru", description="Of what telephony writes into tickets")

    @field_validator("deploy_token", "previous_deploy_token")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value is not None else "x"
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("contains characters that a token cannot have")
        return value
