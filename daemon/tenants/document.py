"""The enterprise document (contract section 4), declared once."""

from __future__ import annotations

import ipaddress
import zoneinfo
from typing import Annotated, Any, Literal

import phonenumbers
from pydantic import AfterValidator, Field, SecretStr, field_validator

from daemon.calls.view import PbxView
from daemon.model.integration import Strict
from daemon.model.phone import to_e164
from daemon.tenants.pattern import check_pattern

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Context = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,79}$")]
Extension = Annotated[str, Field(pattern=r"^[0-9*#]{1,16}$")]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError("not an address or network, like 10.0.0.0/24") from None


Network = Annotated[str, AfterValidator(_network)]


class NoRecordings(Strict):
    source: Literal["none"] = "none"


class DirectoryRecordings(Strict):
    """Files that this host can read; `pbx_path` is the same directory as the PBX names it."""

    source: Literal["directory"]
    path: str = Field(min_length=1, max_length=1_000)
    pbx_path: str = "/var/spool/asterisk/monitor"
    retention_days: int = Field(default=365, ge=1, le=3_650)


class HttpRecordings(Strict):
    """Files that the PBX serves; {file} is replaced by the recording's name."""

    source: Literal["http"]
    url: str = Field(pattern=r"^https?://", max_length=2_000)
    username: str | None = None
    password: SecretStr | None = None
    pbx_path: str = "/var/spool/asterisk/monitor"
    retention_days: int = Field(default=365, ge=1, le=3_650)

    @field_validator("url")
    @classmethod
    def _has_file(cls, value: str) -> str:
        if "{file}" not in value:
            raise ValueError("must contain {file}")
        return value


class NoCdr(Strict):
    source: Literal["none"] = "none"


class DatabaseCdr(Strict):
    source: Literal["postgresql", "mysql"]
    url: SecretStr
    table: str = Field(default="cdr", pattern=r"^[A-Za-z0-9_.]{1,100}$")


class CsvCdr(Strict):
    source: Literal["csv"]
    url: str | None = Field(default=None, pattern=r"^https?://")
    path: str | None = None


class Pbx(Strict):
    """One Asterisk."""

    name: Name
    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")
    port: int = Field(default=5038, ge=1, le=65_535)
    tls: bool = False
    tls_fingerprint: str | None = Field(
        default=None, pattern=r"^([0-9A-Fa-f]{2}:?){32}$", description="SHA-256 of the PBX's certificate, pinned instead of a CA check"
    )
    username: str = Field(default="vochid", min_length=1, max_length=64, pattern=r"^[^\r\n\x00]+$")
    secret: SecretStr | None = None
    internal_context: Context = "inoffice"
    inbound_contexts: tuple[Context, ...] = ("from-trunk",)
    trunks: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9]+/\S{1,79}$")], ...] = ()
    internal_number: Annotated[str, AfterValidator(check_pattern)] = r"^\d{2,4}$"
    originate_channel: str = Field(default="Local/{extension}@{context}", pattern=r"^[A-Za-z0-9]+/([A-Za-z0-9_.@*#+:/-]|\{extension\}|\{context\}){1,100}$")
    originate_second: Literal["exten", "dial"] = "exten"
    allow_redirect: bool = False
    fastagi_peers: tuple[Network, ...] = ("127.0.0.1/32",)
    recordings: Annotated[NoRecordings | DirectoryRecordings | HttpRecordings, Field(discriminator="source")] = NoRecordings()
    cdr: Annotated[NoCdr | DatabaseCdr | CsvCdr, Field(discriminator="source")] = NoCdr()

    @field_validator("secret")
    @classmethod
    def _fits_the_wire(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (len(value.get_secret_value()) > 128 or any(c in value.get_secret_value() for c in "\r\n\0")):
            raise ValueError("at most 128 characters, no line breaks")
        return value


class Line(Strict):
    number: str = Field(min_length=1, max_length=32, pattern=r"^\+?[0-9A-Za-z_.-]+$")
    name: str = Field(default="", max_length=200)
    default_code: Extension | None = None


class InternalPhone(Strict):
    number: Extension
    owner: str = Field(default="", max_length=200)


class Hours(Strict):
    """When calls may be placed, in the enterprise's time zone."""

    from_: str = Field(alias="from", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    to: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    days: tuple[Annotated[int, Field(ge=1, le=7)], ...] = (1, 2, 3, 4, 5, 6, 7)


Prefix = Annotated[str, Field(pattern=r"^\+[0-9]{1,14}$")]


class Counters(Strict):
    """Five counts that toll fraud cannot keep all small; null: not counted. same_number: clicks on one number."""

    per_minute: Annotated[int, Field(ge=1, le=1_000)] | None = None
    concurrent: Annotated[int, Field(ge=1, le=1_000)] | None = None
    same_number_per_hour: Annotated[int, Field(ge=1, le=1_000)] | None = None
    per_day: Annotated[int, Field(ge=1, le=100_000)] | None = None
    talk_minutes_per_day: Annotated[int, Field(ge=1, le=100_000)] | None = None


class DialRules(Strict):
    """What may be dialled by click. allowed_prefixes null: the country's own. per_person counts each extension's clicks; abroad those of
    all into one range of numbers (plus and five digits) that is not the country's own."""

    enabled: bool = True
    allowed_prefixes: tuple[Prefix, ...] | None = None
    denied_prefixes: tuple[Prefix, ...] = ()
    per_extension_per_minute: int = Field(default=10, ge=1, le=1_000)
    concurrent: int = Field(default=10, ge=1, le=1_000)
    per_day: int = Field(default=500, ge=1, le=100_000)
    hours: Hours | None = None
    per_person: Counters = Counters(same_number_per_hour=20, talk_minutes_per_day=720)
    abroad: Counters = Counters(per_minute=5, concurrent=3, same_number_per_hour=5, per_day=50, talk_minutes_per_day=240)


POSTING = "posted"  # the PBX of a document without PBXs
CrmName = Literal["retailcrm", "bitrix24", "amocrm", "tickets"]


class SmartRedirect(Strict):
    mode: Literal["off", "name", "redirect"] = "redirect"
    crm: tuple[CrmName, ...] | None = None
    cache_ttl_s: Seconds = 300


class Retention(Strict):
    """How many days what is over is kept. null: calls and tickets for good, the rest as long as the daemon keeps it at most."""

    calls_days: Annotated[int, Field(ge=30, le=3_650)] | None = None
    tickets_days: Annotated[int, Field(ge=30, le=3_650)] | None = None
    deliveries_days: Annotated[int, Field(ge=1, le=30)] | None = None
    logs_days: Annotated[int, Field(ge=1, le=90)] | None = None
    traces_days: Annotated[int, Field(ge=1, le=90)] | None = None


class Enterprise(Strict):
    """One tenant. `integrations` stays raw here; each adapter's own model reads its part."""

    number: str = Field(pattern=r"^[0-9A-Za-z_-]{1,32}$")
    name: str = Field(min_length=1, max_length=200)
    secret: Annotated[SecretStr, Field(min_length=8, max_length=200)] | None = None
    timezone: str = "Europe/Minsk"
    country: str = "BY"
    paused: bool = False
    pbxs: tuple[Pbx, ...] = Field(max_length=50)
    lines: tuple[Line, ...] = Field(default=(), max_length=5_000)
    internal_phones: tuple[InternalPhone, ...] = Field(default=(), max_length=10_000)
    employee_mobiles: tuple[str, ...] = Field(default=(), max_length=10_000)
    dial_rules: DialRules = DialRules()
    smart_redirect: SmartRedirect = SmartRedirect()
    retention: Retention = Retention()
    integrations: dict[str, Any] = Field(default_factory=dict)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("not a time zone, like Europe/Minsk") from None
        return value

    @field_validator("country")
    @classmethod
    def _known_country(cls, value: str) -> str:
        if value not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError("not a country code, like BY")
        return value

    @field_validator("pbxs")
    @classmethod
    def _named_apart(cls, value: tuple[Pbx, ...]) -> tuple[Pbx, ...]:
        if len({pbx.name for pbx in value}) != len(value):
            raise ValueError("two PBXs have the same name")
        return value

    @field_validator("internal_phones")
    @classmethod
    def _numbered_apart(cls, value: tuple[InternalPhone, ...]) -> tuple[InternalPhone, ...]:
        if len({phone.number for phone in value}) != len(value):
            raise ValueError("two phones have the same number")
        return value

    def posting_view(self) -> PbxView | None:
        """The PBX that posts its calls: the first without a link of ours, one without a name where none is described; None when all
        are linked, for what they post is known already."""
        if not self.pbxs:
            return self.view(Pbx(name=POSTING, host="localhost"))
        return next((self.view(pbx) for pbx in self.pbxs if pbx.secret is None), None)

    def view(self, pbx: Pbx, boot: str = "") -> PbxView:
        """What the call model needs of one of its PBXs."""
        return PbxView(
            enterprise=self.number,
            pbx=pbx.name,
            country=self.country,
            trunks=pbx.trunks,
            inbound_contexts=frozenset(pbx.inbound_contexts),
            internal_context=pbx.internal_context,
            internal_number=pbx.internal_number,
            internal_phones=frozenset(phone.number for phone in self.internal_phones),
            lines=tuple(line.number for line in self.lines),
            employee_mobiles=frozenset(to_e164(mobile, self.country) or mobile for mobile in self.employee_mobiles),
            boot=boot,
        )
