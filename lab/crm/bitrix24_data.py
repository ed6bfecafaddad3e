"""What a Bitrix24 portal in a box holds, its doubtful points, and how it refuses."""

from __future__ import annotations

import re
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

PAGE = 50
REGISTRATION_LIVES_S = 30 * 60.0


class RestError(Exception):
    """A refusal as the portal words it."""

    def __init__(self, status: int, code: str, description: str = "") -> None:
        super().__init__(f"{status} {code} {description}".strip())
        self.status = status
        self.code = code
        self.description = description


@dataclass
class Switches:
    """Doubtful points both ways, and faults. `fail_next` answers the next requests in its own way; 'pass' lets one through."""

    webhook_may_register: bool = True
    error_core: bool = False  # the code of telephony's refusals: ERROR_CORE as documented, or empty as seen
    empty_map: Any = field(default_factory=list)  # [] or {}
    require_https: bool = False
    scope_status: int = 403
    bucket_size: int = 50
    bucket_per_s: float = 2.0
    limited: bool = True
    operation_limit_s: float = 480.0
    operating_resets_s: float = 30.0  # after an answer, says the answer
    event_keys: bool = True  # IS_MOBILE and event_handler_id are sent
    event_tokens: bool = False  # events carry tokens, as to an application
    event_copies: int = 1
    oauth_error_in_200: bool = False
    code_lives_s: float = 30.0
    token_lives_s: float = 3600.0
    fetch_records: bool = False  # RECORD_URL is really fetched
    statistics_denied: bool = False
    is_deleted: bool = False
    is_overloaded: bool = False
    is_free_plan: bool = False
    partial_users: bool = False  # user.get counts more than it gives
    default_dates: bool = True  # a deal that is made without dates gets today and a week from today
    dates_clear: bool = True  # an empty date clears it
    html_comments: bool = False  # line breaks in comments come back as <br>
    event_delay_s: float = 0.0
    events_shuffled: bool = False
    stale_reads: int = 0  # so many reads of one entity show it as it was before its last change
    latency_s: float = 0.0
    fail_next: deque[str] = field(default_factory=deque)


FAULTS = (
    "500", "500-json", "502", "html-200", "truncated", "reset", "silence", "done-then-silence", "redirect", "503-limit", "error-in-200", "array", "expired",
    "batch-lost",
)  # fmt: skip


@dataclass
class PortalUser:
    id: str
    name: str
    phone: str | None = None
    is_active: bool = True
    workday: str = "NOT_INSTALLED"

    def to_json(self) -> dict[str, Any]:
        """A row of user.get; who has no inner phone has null there."""
        first, _, last = self.name.partition(" ")
        return {
            "ID": self.id, "ACTIVE": self.is_active, "NAME": first, "LAST_NAME": last, "EMAIL": f"user{self.id}@portal.example", "WORK_PHONE": "",
            "PERSONAL_MOBILE": "", "UF_DEPARTMENT": [1], "UF_PHONE_INNER": self.phone, "USER_TYPE": "employee", "TIMESTAMP_X": {},
        }  # fmt: skip


@dataclass
class PortalCall:
    """A call from its registration on. `cards`: users who see it now; `row`: its line in the statistics once it is finished."""

    id: str
    user: str
    phone: str
    kind: int
    line: str
    external_id: str
    at: float
    started: str
    entity: tuple[str, int] | None = None
    made: bool = False
    by_portal: bool = False
    cards: set[str] = field(default_factory=set)
    ever_shown: list[str] = field(default_factory=list)
    row: dict[str, Any] | None = None
    record: str | None = None

    def show(self, users: list[str]) -> None:
        self.cards |= set(users)
        self.ever_shown += [user for user in users if user not in self.ever_shown]


@dataclass
class Entity:
    """A lead, a contact, a company or a deal. `multi`: PHONE and EMAIL as their rows; `before`: its fields before the last change, as they are read."""

    id: int
    kind: str
    name: str
    phones: list[str]
    assigned: str
    fields: dict[str, Any] = field(default_factory=dict)
    multi: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    before: dict[str, Any] | None = None
    changes: int = 0


@dataclass
class Tokens:
    """One grant's tokens. Times are monotonic."""

    access: str
    refresh: str
    expires_at: float
    is_current: bool = True


class PortalData:
    """The state of one portal."""

    def __init__(self, users: tuple[PortalUser, ...]) -> None:
        self.users = {user.id: user for user in users}
        self.calls: dict[str, PortalCall] = {}
        self.entities: dict[tuple[str, int], Entity] = {}
        self.ids: dict[str, list[int]] = defaultdict(list)  # by kind, ascending
        self.by_origin: dict[tuple[str, str], list[int]] = {}
        self.by_phone: dict[str, dict[tuple[str, int], Entity]] = defaultdict(dict)
        self.tasks: dict[str, dict[str, Any]] = {}
        self.lines: dict[str, dict[str, Any]] = {}
        self.handlers: list[tuple[str, str]] = []
        self.codes: dict[str, float] = {}
        self.grants: list[Tokens] = []
        self.uploads: dict[str, str] = {}
        self._next_id = 100

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def new_call_id(self) -> str:
        return f"externalCall.{secrets.token_hex(16)}.{int(time.time())}"

    def user_by_phone(self, phone: str) -> PortalUser | None:
        return next((user for user in self.users.values() if user.phone == phone), None)

    def add_entity(self, kind: str, name: str, phones: list[str], assigned: str, fields: dict[str, Any] | None = None) -> Entity:
        entity = Entity(self.new_id(), kind, name, [digits(phone) for phone in phones], assigned, fields or {})
        self.entities[kind, entity.id] = entity
        self.ids[kind].append(entity.id)
        self.set_phones(entity, entity.phones)
        self.touch(entity, is_new=True)
        return entity

    def touch(self, entity: Entity, *, is_new: bool = False) -> None:
        """It changed now; the portal's clock tells whole seconds."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entity.fields |= {"DATE_MODIFY": at, **({"DATE_CREATE": at} if is_new else {})}
        entity.changes += 1

    def remove_entity(self, entity: Entity) -> None:
        del self.entities[entity.kind, entity.id]
        self.ids[entity.kind].remove(entity.id)
        self.set_phones(entity, [])
        if (origin := entity.fields.get("ORIGIN_ID")) and (ids := self.by_origin.get((entity.kind, origin))):
            ids.remove(entity.id)

    def find_entities(self, phone: str) -> list[Entity]:
        """By the number's digits, contacts first."""
        order = ("CONTACT", "COMPANY", "LEAD", "DEAL")
        return sorted(self.by_phone[digits(phone)].values(), key=lambda e: (order.index(e.kind), e.id))

    def set_phones(self, entity: Entity, phones: list[str]) -> None:
        """Its numbers from now on, in digits."""
        for phone in entity.phones:
            self.by_phone[phone].pop((entity.kind, entity.id), None)
        entity.phones = phones
        for phone in phones:
            self.by_phone[phone][entity.kind, entity.id] = entity

    def finished(self) -> list[PortalCall]:
        """Calls in the statistics, in the order in which they were finished."""
        return sorted((call for call in self.calls.values() if call.row), key=lambda call: int((call.row or {})["ID"]))


def digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


# -- parameters ------------------------------------------------------------------------------------------------------------------

_PART = re.compile(r"\[([^\[\]]*)\]")


def nested(pairs: Iterator[tuple[str, Any]] | list[tuple[str, Any]]) -> dict[str, Any]:
    """What PHP makes of form fields: a[b][0]=c is {"a": {"b": ["c"]}}."""
    root: dict[str, Any] = {}
    for name, value in pairs:
        first, bracket, _ = name.partition("[")
        parts = [first, *_PART.findall(name[len(first) :])] if bracket else [first]
        place = root
        for part in parts[:-1]:
            key = part or str(len(place))
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        place[parts[-1] or str(len(place))] = value
    return {key: _listed(value) for key, value in root.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {key: _listed(item) for key, item in value.items()}
    return list(inner.values()) if inner and list(inner) == [str(index) for index in range(len(inner))] else inner


class Params:
    """A method's parameters; names in either case."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {key.upper(): value for key, value in values.items()}

    def get(self, name: str, otherwise: Any = None) -> Any:
        value = self._values.get(name.upper())
        return otherwise if value is None else value

    def text(self, name: str) -> str:
        value = self.get(name, "")
        return str(value).strip() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""

    def flag(self, name: str, otherwise: bool) -> bool:
        value = self.get(name)
        return otherwise if value is None else value is True or str(value) in ("1", "Y", "true")

    def ids(self, name: str) -> list[str]:
        value = self.get(name, [])
        return [str(item) for item in (value if isinstance(value, list) else [value])]
