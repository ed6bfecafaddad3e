"""What RetailCRM is told: popups while it rings, the journal with the recording's link when it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from adapters.base import Connection, Tenant
from adapters.retailcrm import module
from adapters.retailcrm.admin import check_connection
from adapters.retailcrm.client import Accepted, RetailCrmClient
from adapters.retailcrm.config import RetailCrmSettings
from adapters.retailcrm.limits import MAX_TEXT, POLICY
from adapters.retailcrm.lookup import look_up
from daemon.model.call import Call, Direction, Result
from daemon.model.crm import CrmUser, Registered, Registration, Responsible
from daemon.model.delivery import Ambiguous, Check, Delivered, Delivery, Kind, Outcome, Planned, Policy, Priority, Rejected, Retry
from daemon.model.integration import IntegrationSettings
from daemon.model.phone import digits_of
from daemon.model.signal import CallChange, Ended, RecordingAdded, Ringing, StoppedRinging

POPUP_LIFETIME_S = 30.0
NOBODY = "anonymous"  # `phone` is required; a withheld number is a call all the same

# Spelling trap of the API: hangupStatus says "no answered", the journal's result "no answer".
_HANGUP_STATUS = {
    Result.ANSWERED: "answered",
    Result.BUSY: "busy",
    Result.CANCELLED: "cancel",
    Result.NO_ANSWER: "no answered",
    Result.VOICEMAIL: "no answered",
}
_JOURNAL_RESULT = {
    Result.ANSWERED: "answered",
    Result.BUSY: "busy",
    Result.CANCELLED: "no answer",
    Result.NO_ANSWER: "no answer",
    Result.VOICEMAIL: "no answer",
    Result.REJECTED: "failed",
    Result.UNAVAILABLE: "failed",
    Result.INTERRUPTED: "unknown",
}


class RetailCrm:
    """The adapter."""

    name: ClassVar[str] = "retailcrm"
    title: ClassVar[str] = "RetailCRM"
    settings: ClassVar[type[IntegrationSettings]] = RetailCrmSettings
    policy: ClassVar[Policy] = POLICY

    def account(self, settings: RetailCrmSettings) -> str:
        return settings.domain

    def plan(self, change: CallChange, settings: RetailCrmSettings, tenant: Tenant) -> Sequence[Planned]:
        call = change.call
        if call.direction is Direction.INTERNAL:
            return ()
        planned: list[Planned] = []
        for signal in change.signals:
            match signal:
                case Ringing(extensions):
                    planned += _popup(call, extensions, settings, change.at)
                case StoppedRinging(extensions):
                    talked = tuple(extension for extension in extensions if has_talked(call, extension))
                    others = tuple(extension for extension in extensions if extension not in talked)
                    status = "cancel" if call.answered_at is not None else "no answered"
                    planned += _hangup(call, talked, "answered", settings, f"{change.at:.3f}")
                    planned += _hangup(call, others, status, settings, f"{change.at:.3f}")
                case Ended(extensions):
                    status = _HANGUP_STATUS.get(call.result or Result.INTERRUPTED, "failed")
                    planned += _hangup(call, extensions, status, settings, "end")
                    if settings.send.journal:
                        planned.append(Planned(Kind.JOURNAL, f"journal:{call.id}", {}, Priority.JOURNAL, with_recordings=settings.send.recordings))
                case RecordingAdded(name) if settings.send.journal and settings.send.recordings:
                    key = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]
                    planned.append(Planned(Kind.RECORDING, f"recording:{call.id}:{key}", {}, Priority.SYNC, with_recordings=True))
        return planned

    async def deliver(self, connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        client = RetailCrmClient(connection.settings, connection.http)
        if batch[0].kind is Kind.RECORDING and not batch[0].recordings:
            return [Delivered("there is nothing to hand over: the recording is empty, or recordings are switched off")]
        if batch[0].kind in (Kind.JOURNAL, Kind.RECORDING):
            return await _upload(client, connection, batch)
        return [await _event(client, delivery) for delivery in batch]

    async def reconcile(self, connection: Connection, delivery: Delivery) -> Outcome:
        return Retry("repeating is safe: the call is known by its externalId", after_s=0)

    async def check(self, connection: Connection) -> Sequence[Check]:
        return await check_connection(RetailCrmClient(connection.settings, connection.http))

    async def responsible(self, connection: Connection, phone: str) -> Responsible | None:
        return await look_up(RetailCrmClient(connection.settings, connection.http), phone)

    async def register(self, connection: Connection, registration: Registration) -> Registered:
        return await module.register(connection, registration)

    async def unregister(self, connection: Connection, registration: Registration) -> Registered:
        return await module.unregister(connection, registration)

    async def managers(self, connection: Connection) -> Sequence[CrmUser]:
        return await module.managers(connection)

    async def set_extensions(self, connection: Connection, extensions: Mapping[str, str], registration: Registration | None) -> None:
        await module.set_extensions(connection, extensions, registration)


# -- popups ------------------------------------------------------------------------------------------------------------


def _popup(call: Call, extensions: tuple[str, ...], settings: RetailCrmSettings, at: float) -> list[Planned]:
    wanted = settings.send.popup_in if call.direction is Direction.IN else settings.send.popup_out
    if not wanted or not extensions or call.customer_number is None:
        return []
    payload = {"type": str(call.direction), "codes": list(extensions)}
    return [Planned(Kind.POPUP, f"popup:{call.id}:{'+'.join(extensions)}:{at:.3f}", payload, Priority.POPUP, POPUP_LIFETIME_S)]


def _hangup(call: Call, extensions: tuple[str, ...], status: str, settings: RetailCrmSettings, when: str) -> list[Planned]:
    if not settings.send.hangup or not extensions or call.customer_number is None:
        return []
    payload = {"type": "hangup", "codes": list(extensions), "hangupStatus": status}
    return [Planned(Kind.HANGUP, f"hangup:{call.id}:{'+'.join(extensions)}:{when}", payload, Priority.POPUP, POPUP_LIFETIME_S)]


async def _event(client: RetailCrmClient, delivery: Delivery) -> Outcome:
    event: dict[str, Any] = {"phone": _phone(delivery.call), **delivery.payload, "callExternalId": delivery.call.id}
    if delivery.call.line:
        event["externalPhone"] = digits_of(delivery.call.line) or delivery.call.line
    answer = await client.post("v5/telephony/call/event", event=event)
    if not isinstance(answer, Accepted):
        return answer
    unknown = answer.body.get("notExistCodes") or []
    return Delivered(f"extensions unknown to the CRM: {', '.join(map(str, unknown))}" if unknown else "")


# -- the journal ---------------------------------------------------------------------------------------------------------


def journal_entry(call: Call, settings: RetailCrmSettings, tenant: Tenant, recordings: Sequence[str] = ()) -> dict[str, Any]:
    """One item of calls/upload; it takes one link, the first of `recordings` that is short enough. Pure."""
    zone = ZoneInfo(settings.timezone or tenant.timezone)
    entry: dict[str, Any] = {
        "date": datetime.fromtimestamp(call.started_at, UTC).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S"),
        "type": str(call.direction),
        "phone": _phone(call),
        "result": journal_result(call),
        "duration": round(call.talk_seconds),
        "durationWaiting": round(call.wait_seconds),
        "externalId": call.id,
    }
    if code := responsible_code(call, tenant):
        entry["code"] = code
    if call.line:
        entry["externalPhone"] = digits_of(call.line) or call.line
    if link := next((link for link in recordings if len(link) <= MAX_TEXT), None):
        entry["recordUrl"] = link
    return entry


def journal_result(call: Call) -> str:
    """The API's word for how the call ended; barred by the dialplan is `not allowed`."""
    if call.result is Result.REJECTED and call.direction is Direction.OUT and all(leg.number == call.initiator for leg in call.legs):
        return "not allowed"
    return _JOURNAL_RESULT.get(call.result or Result.INTERRUPTED, "unknown")


def has_talked(call: Call, extension: str) -> bool:
    """Whether this one of ours had the customer: who answered, and who handed the call on."""
    return extension in (call.answered_by, call.last_talked) or any(
        move.source == extension for move in call.transfers if move.kind not in ("pickup", "forward")
    )


def responsible_code(call: Call, tenant: Tenant) -> str | None:
    """Whose entry it is: who talked last, else who answered, else who rang first (for an outgoing call: who placed it), else the
    line's default. A mobile is nobody's code: then it is the one for whom it was answered.
    """
    candidates = (call.last_talked, call.answered_by, *call.rang[:1], call.initiator, tenant.default_codes.get(call.line or ""))
    return next((code for code in candidates if code and not code.startswith("+")), None)


async def _upload(client: RetailCrmClient, connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
    entries = [journal_entry(delivery.call, connection.settings, connection.tenant, delivery.recordings) for delivery in batch]
    answer = await client.post("v5/telephony/calls/upload", calls=entries)
    if isinstance(answer, Rejected) and len(batch) > 1:
        return [Retry(f"refused together with others ({answer.reason}), alone next time", after_s=0)] * len(batch)
    if not isinstance(answer, Accepted):
        return [answer] * len(batch)
    return _upload_results(answer, [entry["externalId"] for entry in entries])


def _upload_results(answer: Accepted, ids: list[str]) -> list[Outcome]:
    duplicates = {str(known) for known in answer.body.get("duplicateCalls") or []}
    processed = answer.body.get("processedCallsCount")
    fresh = [external_id for external_id in ids if external_id not in duplicates]
    all_taken = not answer.is_partial and (processed is None or int(processed) >= len(fresh))
    results: list[Outcome] = []
    for external_id in ids:
        if external_id in duplicates:
            results.append(Delivered("the CRM had it already"))
        elif all_taken or (len(ids) == 1 and processed):
            results.append(Delivered())
        elif len(ids) > 1:
            results.append(Ambiguous("the CRM took a part of the batch, alone next time"))
        else:
            results.append(
                Rejected(f"the CRM did not take the call: {answer.body.get('errorMsg') or 'no reason given'} {answer.body.get('errors') or ''}".strip())
            )
    return results


def _phone(call: Call) -> str:
    return digits_of(call.customer_number or "") or NOBODY
