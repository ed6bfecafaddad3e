"""Process settings: environment first, then /etc/vochid/vochid.toml; secrets also as systemd credentials."""

from __future__ import annotations

import ipaddress
import os
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from daemon.errors import SettingsError

CONFIG_FILE = Path("/etc/vochid/vochid.toml")


class Listen(BaseModel):
    """host:port to listen on."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _listen(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise ValueError("must be host:port, like 127.0.0.1:8019")
    return {"host": host.strip("[]") or "127.0.0.1", "port": int(port)}


def _default_data_dir() -> Path:
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.partition(":")[0])
    return Path("/var/lib/vochid") if os.geteuid() == 0 else Path.home() / ".local/share/vochid"


class Settings(BaseSettings):
    """Frozen after start. Names: VOCHID_ and the field's in capitals."""

    model_config = SettingsConfigDict(env_prefix="VOCHID_", frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: SecretStr | None = None
    data_dir: Path = Field(default_factory=_default_data_dir)
    http: Annotated[Listen, NoDecode] = Listen(host="127.0.0.1", port=8019)
    fastagi: Annotated[Listen, NoDecode] = Listen(host="127.0.0.1", port=4573)
    metrics: Annotated[Listen, NoDecode] = Listen(host="127.0.0.1", port=9319)
    public_url: str | None = None
    secret_keys: SecretStr | None = None
    secret_keys_file: Path | None = None
    admin_token: SecretStr | None = None
    admin_token_file: Path | None = None
    egress_allow: str = ""
    trusted_proxies: str = "127.0.0.1/32"
    alert_url: SecretStr | None = None
    log_level: str = "info"
    log_format: str | None = Field(default=None, pattern="^(console|json)$")
    trace_days: int = Field(default=7, ge=0, le=90)
    trace_mask: bool = False
    node: str = Field(default_factory=socket.gethostname, min_length=1, max_length=64)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _Credentials(settings_cls), TomlConfigSettingsSource(settings_cls, CONFIG_FILE)

    _parse_listen = field_validator("http", "fastagi", "metrics", mode="before")(_listen)

    @field_validator("egress_allow", "trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for text in filter(None, (part.strip() for part in value.split(","))):
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text} is not an address or network, like 10.0.0.0/8") from None
        return value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.lower() not in ("debug", "info", "warning", "error"):
            raise ValueError("must be debug, info, warning or error")
        return value.lower()

    @property
    def base_url(self) -> str:
        """What CRMs are told."""
        return (self.public_url or f"http://{self.http}").rstrip("/")

    def networks(self, name: str) -> list[str]:
        """A comma-separated setting as a list."""
        return [part.strip() for part in getattr(self, name).split(",") if part.strip()]

    def admin_bearer(self) -> str | None:
        """The super-admin's token for automation, or None when it is off."""
        if self.admin_token is not None:
            return self.admin_token.get_secret_value() or None
        return _read_secret(self.admin_token_file, "admin_token_file")


class _Credentials(PydanticBaseSettingsSource):
    """systemd credentials of the same lower-case names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        path = Path(directory) / f"vochid_{field_name}" if directory else None
        return (path.read_text().strip() if path and path.is_file() else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def load_settings(**overrides: Any) -> Settings:
    """The settings. Raises SettingsError naming the variable, without its value."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = "VOCHID_" + str(first["loc"][0]).upper() if first["loc"] else "settings"
        raise SettingsError(f"{name}: {first['msg'].removeprefix('Value error, ')}", field=name) from None
    except (tomllib.TOMLDecodeError, OSError) as error:
        raise SettingsError(f"{CONFIG_FILE}: {error}") from None


def _read_secret(path: Path | None, name: str) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text().strip() or None
    except OSError as error:
        raise SettingsError(f"VOCHID_{name.upper()}: {error}") from None
