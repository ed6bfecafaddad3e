"""Places calls by click: decide, reserve, send once. Thin shell.

Nothing is dialled before its row is committed, and nothing is ever sent a second time: an Originate whose answer was lost is unknown
until the PBX's own events tell (follow.py).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from daemon.ami.actions import Originate, channel_of
from daemon.ami.link import Link, LinkDown, NotConnected
from daemon.ami.wire import ActionError
from daemon.errors import NotFound, VochidError
from daemon.model.call import CLICK_CHANNEL
from daemon.model.phone import PhoneNumber, digits_of
from daemon.nodes.asks import NoAnswer, NotTaken
from daemon.originate.follow import ANSWER_TIMEOUT_S, NEVER_SENT, Follower, Watched
from daemon.originate.guard import BadRequest, DialRefused, check_rules, day_began, pbx_for, range_abroad, read_extension, read_phone
from daemon.originate.states import Progress, State
from daemon.store.leases import PbxKey
from daemon.store.originates import OriginateRepository, OriginateRequest
from daemon.telemetry import metrics
from daemon.tenants.document import Enterprise, Pbx
from daemon.tenants.service import Tenancy, Tenants

ANSWER_WITHIN_S = 2.0
SAME_CLICK_S = 10.0
OPEN_FOR_S = 4 * 3_600.0  # an open request older than this no longer counts as concurrent: its end was lost
REFUSALS_PER_MINUTE = 60
LOOK_AGAIN_S = 0.1
MAX_SHOWN = 64
MAX_KEY_LENGTH = 200
LINE_VARIABLE = "__VOCHI_LINE"  # for the dialplan: the own number that the click asks to call from

_OVER = {
    "per_extension_per_minute": "this extension has placed too many calls within a minute",
    "concurrent": "too many calls by click are open at this moment",
    "per_day": "the enterprise's calls by click for today are used up",
    "per_person_per_minute": "this extension has placed too many calls within a minute",
    "per_person_concurrent": "this extension has too many calls by click open",
    "per_person_same_number_per_hour": "this extension has called this number too often within an hour",
    "per_person_per_day": "this extension's calls by click for today are used up",
    "per_person_talk_minutes_per_day": "this extension's talking time by click for today is used up",
    "abroad_per_minute": "too many calls into this range of numbers abroad within a minute",
    "abroad_concurrent": "too many calls into this range of numbers abroad are open",
    "abroad_same_number_per_hour": "this number abroad was called too often within an hour",
    "abroad_per_day": "calls into this range of numbers abroad are used up for today",
    "abroad_talk_minutes_per_day": "talking time into this range of numbers abroad is used up for today",
}

log = structlog.get_logger()


class OverLimit(VochidError):
    """A counted limit of the dial rules is reached."""


class NoLink(VochidError):
    """The PBX is not connected to this process: the click is refused, never queued."""

    code = NEVER_SENT


class PbxRefused(BadRequest):
    """The PBX refuses: no such extension in its dialplan, no such channel technology, no right to originate."""

    code = "pbx_refused"


@dataclass(frozen=True, slots=True)
class Asked:
    """A click, nothing in it believed yet. `extension` wins over `user_id`, a user of the integration `source`."""

    phone: str
    source: str
    extension: str | None = None
    user_id: str | None = None
    line: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """What is known when the click is answered."""

    request_id: str
    state: State


class Elsewhere(Protocol):
    """The other daemons of this database."""

    async def reader(self, key: PbxKey) -> str | None:
        """The other process that reads a PBX now; None when there is none."""

    async def place(self, reader: str, request: OriginateRequest, within_s: float) -> Progress:
        """Has it send what is reserved, at most once; gives how that went. Raises NotTaken (nothing was sent, nor will be), NoAnswer."""


class OriginateService:
    """The one way to place a call. `links` gives the link of a PBX that this process reads, else None."""

    def __init__(
        self,
        tenants: Tenants,
        repository: OriginateRepository,
        follower: Follower,
        links: Callable[[PbxKey], Link | None],
        elsewhere: Elsewhere | None = None,
        *,
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._tenants = tenants
        self._repository = repository
        self._follower = follower
        self._links = links
        self._elsewhere = elsewhere
        self._answer_within_s = answer_within_s

    async def click(self, enterprise: str, asked: Asked) -> Placed:
        """Rings the manager and then the customer; answers when the PBX has taken it, or after two seconds (state unknown).

        Raises BadRequest, DialRefused, OverLimit, NoLink or PbxRefused; each is written to the enterprise's log.
        """
        try:
            return await self._click(enterprise, asked)
        except (BadRequest, DialRefused, OverLimit, NoLink) as error:
            if not isinstance(error, PbxRefused):  # that one was sent: its end is logged by the follower
                shown = {"extension": _shown(asked.extension), "user": _shown(asked.user_id), "phone": _shown(asked.phone)}
                metrics.ORIGINATES.labels(asked.source, str(State.REFUSED)).inc()
                await self._repository.log(enterprise, asked.source, shown, {"state": "refused", "code": error.code}, str(error))
            raise

    async def get(self, enterprise: str, request_id: str) -> OriginateRequest:
        """A request as it stands. Raises NotFound."""
        return await self._repository.get(enterprise, request_id)

    async def _click(self, enterprise: str, asked: Asked) -> Placed:
        tenancy = self._tenants.get(enterprise)
        if tenancy is None:
            raise NotFound(f"there is no enterprise {enterprise}")
        document, now = tenancy.enterprise, datetime.now(UTC)
        if asked.idempotency_key is not None and not (0 < len(asked.idempotency_key) <= MAX_KEY_LENGTH and asked.idempotency_key.isprintable()):
            raise BadRequest(f"the key has 1 to {MAX_KEY_LENGTH} printable characters", code="bad_parameter", field="idempotency_key")
        extension = read_extension(_extension(tenancy, asked), document, _assigned(tenancy))
        phone = read_phone(asked.phone, document.country)
        pbx = pbx_for(extension, document)
        wanted = _row(pbx, extension, phone, _line(document, asked.line), asked)
        try:
            check_rules(phone, document, now)
            way = await self._way(enterprise, pbx)
        except (DialRefused, NoLink) as error:
            await self._repository.reserve(enterprise, {**wanted, "code": error.code, "reason": str(error)}, _limits(document, phone, now))
            raise
        assert pbx is not None
        action = _originate(wanted, pbx)
        request = await self._repository.reserve(enterprise, wanted, _limits(document, phone, now))
        if request.id != wanted["id"]:
            return await self._repeated(request)
        if request.state == State.REFUSED:
            raise OverLimit(request.reason or "a limit is reached", code=request.code)
        if isinstance(way, str):
            return await self._place_elsewhere(request, way)
        return await self._place(self._follower.watch(request), way, action)

    async def place_reserved(self, enterprise: str, request_id: str) -> Progress:
        """Sends what another daemon has reserved for a PBX that is read here. To be called once for a request. Raises NotFound."""
        request, tenancy = await self._repository.get(enterprise, request_id), self._tenants.get(enterprise)
        pbx = next((pbx for pbx in tenancy.enterprise.pbxs if pbx.name == request.pbx), None) if tenancy is not None else None
        watched, link = self._follower.watch(request), self._links((enterprise, request.pbx))
        if watched.state is not State.RESERVED:
            return watched.progress
        if pbx is None or link is None or not link.is_ready:
            self._follower.move(watched, _never_sent(request.pbx))
        else:
            try:
                await self._place(watched, link, _originate(asdict(request), pbx))
            except (BadRequest, NoLink) as error:
                self._follower.move(watched, _never_sent(request.pbx, str(error)))  # changes nothing once it was sent
        return watched.progress

    async def _way(self, enterprise: str, pbx: Pbx | None) -> Link | str:
        """The PBX's link, or the other process that has it. Raises NoLink."""
        if pbx is None:
            raise NoLink("this enterprise has no PBX that calls can be placed through")
        key = (enterprise, pbx.name)
        link = self._links(key)
        if link is not None and link.is_ready:
            return link
        reader = await self._elsewhere.reader(key) if link is None and self._elsewhere is not None else None
        if reader is None:
            raise NoLink(f"the PBX {pbx.name} is not connected: try again when it is, nothing was dialled")
        return reader

    async def _place_elsewhere(self, request: OriginateRequest, reader: str) -> Placed:
        assert self._elsewhere is not None
        try:
            progress = await self._elsewhere.place(reader, request, self._answer_within_s)
        except NotTaken:
            progress = _never_sent(request.pbx)
            self._follower.move(self._follower.watch(request), progress)
        except NoAnswer:  # who has it follows it
            progress = Progress(State.UNKNOWN, "no_answer", "the daemon that reads the PBX has not answered yet")
        _raise_if_refused(progress)
        return Placed(request.id, State.UNKNOWN if progress.state is State.UNKNOWN else State.SENT)

    async def _place(self, watched: Watched, link: Link, action: Originate) -> Placed:
        sending = self._follower.send(watched, self._send(watched, link, action))
        done, _ = await asyncio.wait({sending}, timeout=self._answer_within_s)
        if not done:
            self._follower.move(watched, Progress(State.UNKNOWN, "no_answer", "the PBX has not answered yet"))
        _raise_if_refused(watched.progress)
        return Placed(watched.request.id, State.UNKNOWN if watched.state is State.UNKNOWN else State.SENT)

    async def _send(self, watched: Watched, link: Link, action: Originate) -> None:
        try:
            answer = await link.request(action)
        except NotConnected:
            progress = Progress(State.FAILED, NoLink.code, "the PBX's link went down before anything was dialled")
        except LinkDown as error:
            progress = Progress(State.UNKNOWN, "no_answer", f"the PBX's answer was lost: {error}")
        else:
            progress = Progress(State.SENT) if answer.ok else Progress(State.FAILED, PbxRefused.code, f"the PBX refused: {answer.message[:200]}")
        self._follower.move(watched, progress)

    async def _repeated(self, former: OriginateRequest) -> Placed:
        """The same click again: it is told what became of the first."""
        watched = self._follower.find(former)
        if watched is None:
            former = await self._known_elsewhere(former)
            _raise_if_refused(Progress(State(former.state), former.code, former.reason))
            return Placed(former.id, State(former.state))
        if watched.sending is not None and not watched.sending.done():
            await asyncio.wait({watched.sending}, timeout=self._answer_within_s)
        _raise_if_refused(watched.progress)
        return Placed(former.id, watched.state)

    async def _known_elsewhere(self, former: OriginateRequest) -> OriginateRequest:
        """A request that another daemon is sending at this moment, as it stands when that is done."""
        until = time.monotonic() + self._answer_within_s
        while former.state == State.RESERVED and self._elsewhere is not None and time.monotonic() < until:
            await asyncio.sleep(LOOK_AGAIN_S)
            former = await self._repository.get(former.enterprise, former.id)
        return former


def _never_sent(pbx: str, why: str = "") -> Progress:
    return Progress(State.FAILED, NoLink.code, why or f"the PBX {pbx} is not connected: nothing was dialled")


def _raise_if_refused(progress: Progress) -> None:
    if progress.state is State.FAILED and progress.code == NoLink.code:
        raise NoLink(progress.reason or "the PBX is not connected")
    if progress.state is State.FAILED and progress.code == PbxRefused.code:
        raise PbxRefused(progress.reason or "the PBX refused")


def _extension(tenancy: Tenancy, asked: Asked) -> str:
    if asked.extension:
        return asked.extension
    if not asked.user_id:
        raise BadRequest("say who calls: an extension or a CRM user", code="missing_parameter", field="extension")
    settings = tenancy.integrations.get(asked.source)
    found = settings.user_extensions.get(asked.user_id) if settings is not None else None
    if not found:
        raise BadRequest(f"No extension configured for user {_shown(asked.user_id)}", code="no_extension", field="user")
    return found


def _assigned(tenancy: Tenancy) -> frozenset[str]:
    """Extensions that managers of an enabled integration hold."""
    return frozenset(
        extension for settings in tenancy.integrations.values() if settings.enabled for extension in settings.user_extensions.values() if extension
    )


def _line(document: Enterprise, asked: str | None) -> str | None:
    """The line of ours that a click names, by its digits; a number that is none of ours is not shown to anybody."""
    digits = digits_of(asked or "")
    return next((line.number for line in document.lines if digits and digits_of(line.number) == digits), None)


def _row(pbx: Pbx | None, extension: str, phone: str, line: str | None, asked: Asked) -> dict[str, Any]:
    request_id = uuid.uuid4()
    channel_id = f"{CLICK_CHANNEL}{request_id.hex}"
    return {
        "id": str(request_id), "pbx": pbx.name if pbx else "", "extension": extension, "phone": phone, "line": line, "source": asked.source,
        "idempotency_key": asked.idempotency_key, "channel_id": channel_id, "other_channel_id": f"{channel_id}-2",
    }  # fmt: skip


def _limits(document: Enterprise, phone: PhoneNumber, now: datetime) -> dict[str, Any]:
    rules = document.dial_rules
    return {
        "per_extension_per_minute": rules.per_extension_per_minute, "concurrent": rules.concurrent, "per_day": rules.per_day,
        "same_click_s": SAME_CLICK_S, "open_s": OPEN_FOR_S, "day_began": day_began(document, now).isoformat(), "words": _OVER,
        "refusals_per_minute": REFUSALS_PER_MINUTE, "per_person": rules.per_person.model_dump(), "abroad": rules.abroad.model_dump(),
        "range": range_abroad(phone, document.country),
    }  # fmt: skip


def _originate(row: Mapping[str, Any], pbx: Pbx) -> Originate:
    try:
        return Originate(
            channel=channel_of(pbx.originate_channel, row["extension"], pbx.internal_context),
            context=pbx.internal_context,
            phone=row["phone"],
            second=pbx.originate_second,
            shown=row["phone"],
            timeout_ms=round(ANSWER_TIMEOUT_S * 1000),
            channel_id=row["channel_id"],
            other_channel_id=row["other_channel_id"],
            variables=((LINE_VARIABLE, row["line"]),) if row["line"] else (),
        )
    except ActionError as error:
        raise BadRequest(f"this cannot be dialled: {error}", code="bad_parameter") from None


def _shown(text: str | None) -> str | None:
    """What a stranger sent, fit to be shown: cut, and without what does not print."""
    return None if text is None else "".join(character for character in text[:MAX_SHOWN] if character.isprintable())
