"""What is made of a call, and whose it is. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from adapters.amocrm.config import AmoCrmSettings
from adapters.base import Tenant
from daemon.model.call import Call, Direction, Result
from daemon.model.integration import Rule

DEFAULT_DEADLINE_S = 3_600

# A rule that nobody wrote: an unknown caller is an incoming lead; somebody unknown whom we called is a contact.
_INCOMING = Rule(do="unsorted")
_OUTGOING = Rule(do="contact")
_NOTHING = Rule(do="nothing")

_STATUS = {
    Result.ANSWERED: 4,
    Result.BUSY: 7,
    Result.NO_ANSWER: 6,
    Result.CANCELLED: 6,
    Result.REJECTED: 6,
    Result.UNAVAILABLE: 3,
    Result.VOICEMAIL: 1,
}
UNALLOCATED = 1  # Q.850
WRONG_NUMBER = 5

_WORDS = {
    Result.ANSWERED: ("Разговор состоялся", "Answered"),
    Result.VOICEMAIL: ("Оставлено голосовое сообщение", "Voicemail"),
    Result.CANCELLED: ("Звонящий положил трубку", "Caller hung up"),
    Result.NO_ANSWER: ("Нет ответа", "No answer"),
    Result.BUSY: ("Занято", "Busy"),
    Result.REJECTED: ("Вызов отклонён", "Rejected"),
    Result.UNAVAILABLE: ("Абонент недоступен", "Unavailable"),
    Result.INTERRUPTED: ("Связь прервалась", "Interrupted"),
}


def fitting(settings: AmoCrmSettings, call: Call, known: bool, *, late: bool = False) -> Rule:
    """The first rule that fits; where none does, a known customer needs nothing and an unknown one must become something.

    late: the call was found afterwards; nobody is given work by it.
    """
    default = _NOTHING if known else _INCOMING if call.direction is Direction.IN else _OUTGOING
    if late:
        return default
    answered = call.result is Result.ANSWERED
    for rule in settings.rules:
        pairs = ((rule.line, call.line), (rule.direction, str(call.direction)), (rule.answered, answered), (rule.known, known))
        if all(wanted is None or wanted == found for wanted, found in pairs):
            return rule
    return default


def may_make(settings: AmoCrmSettings, call: Call) -> bool:
    """Whether a rule might make a task or a lead of this call; whether the customer is known shows later."""
    return any(fitting(settings, call, known).do in ("task", "lead") for known in (True, False))


def extension_of(call: Call, rule: Rule, tenant: Tenant) -> str | None:
    """Whose the call is, by the rule: an extension of ours. Whoever the rule names and did not take part falls back to who did."""
    ours = [call.last_talked, call.answered_by]
    if rule.responsible == "first_answered":
        ours.reverse()
    if rule.responsible not in ("first_answered", "last_talked", "entity"):
        ours.insert(0, rule.responsible)
    candidates = (*ours, call.initiator, *call.rang[:1], tenant.default_codes.get(call.line or ""))
    return next((code for code in candidates if code and not code.startswith("+")), None)


def responsible_user(call: Call, rule: Rule, settings: AmoCrmSettings, tenant: Tenant, of_entity: int | None = None) -> int | None:
    """The CRM user who gets what is made: the entity's own, where the rule says so and there is one, else the extension's."""
    if rule.responsible == "entity" and of_entity is not None:
        return of_entity
    return settings.user_of(extension_of(call, rule, tenant))


def call_status(call: Call) -> int | None:
    """amoCRM's number for how the call ended; None for an end that nobody saw."""
    if call.result is Result.UNAVAILABLE and any(leg.cause == UNALLOCATED for leg in call.legs):
        return WRONG_NUMBER
    return _STATUS.get(call.result) if call.result else None


def call_words(call: Call, settings: AmoCrmSettings) -> str:
    """The same in words, in the language of the account's people."""
    return _say(settings, *_WORDS[call.result or Result.INTERRUPTED])


def deadline(call: Call, rule: Rule) -> int:
    """Until when a task is to be done, Unix seconds."""
    return round(call.ended_at or call.started_at) + (rule.task_deadline_s or DEFAULT_DEADLINE_S)


def task_text(call: Call, settings: AmoCrmSettings, tenant: Tenant) -> str:
    """A task's text: with the moment in it, it is found again."""
    number, at = call.customer_number or "", _moment(call, tenant)
    if call.missed:
        return _say(settings, f"Перезвонить: пропущенный звонок {number}, {at}", f"Call back: missed call from {number}, {at}")
    return _say(settings, f"Звонок {number}, {at}", f"Call with {number}, {at}")


def lead_name(call: Call, settings: AmoCrmSettings, tenant: Tenant) -> str:
    """A lead's name."""
    number, at = call.customer_number or "", _moment(call, tenant)
    if call.missed:
        return _say(settings, f"Пропущенный звонок {number}, {at}", f"Missed call from {number}, {at}")
    if call.direction is Direction.IN:
        return _say(settings, f"Входящий звонок {number}, {at}", f"Incoming call from {number}, {at}")
    return _say(settings, f"Исходящий звонок {number}, {at}", f"Outgoing call to {number}, {at}")


def called_back_text(settings: AmoCrmSettings, by: str | None) -> str:
    """What a task's result says when the customer was reached."""
    return _say(settings, f"Клиенту перезвонили{f', {by}' if by else ''}", f"The customer was called back{f' by {by}' if by else ''}")


def _say(settings: AmoCrmSettings, russian: str, english: str) -> str:
    return russian if settings.is_russian else english


def _moment(call: Call, tenant: Tenant) -> str:
    return datetime.fromtimestamp(call.started_at, UTC).astimezone(ZoneInfo(tenant.timezone)).strftime("%d.%m.%Y %H:%M:%S")
