"""What telephony writes into a ticket about a call. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from daemon.model.call import Call, Direction, Result
from daemon.model.signal import CalledBack

_RU = {
    "missed": "Пропущенный вызов", "voicemail": "Голосовая почта", "in": "Входящий вызов", "out": "Исходящий вызов", "hidden": "номер скрыт",
    "began": "Начало", "line": "Линия", "waited": "Ждал", "talked": "Разговор", "with": "Говорили", "rang": "Звонили", "queue": "Очередь",
    "result": "Итог", "recording": "Запись разговора", "recording_of": "Запись разговора от {at}",
    "called_back": "Перезвонили", "got_through": "Клиент дозвонился", "done": "Отмечено: перезванивать не нужно", "by": "кто: {by}",
    "answered": "состоялся", "cancelled": "клиент положил трубку", "no_answer": "не ответили", "busy": "занято", "rejected": "отклонён",
    "unavailable": "недоступен", "interrupted": "конец не виден",
}  # fmt: skip
_EN = {
    "missed": "Missed call", "voicemail": "Voicemail", "in": "Incoming call", "out": "Outgoing call", "hidden": "number withheld",
    "began": "Began", "line": "Line", "waited": "Waited", "talked": "Talked", "with": "With", "rang": "Rang at", "queue": "Queue",
    "result": "Result", "recording": "Recording", "recording_of": "Recording of the call of {at}",
    "called_back": "Called back", "got_through": "The customer got through", "done": "Noted: needs no call back", "by": "by {by}",
    "answered": "answered", "cancelled": "the caller hung up", "no_answer": "no answer", "busy": "busy", "rejected": "rejected",
    "unavailable": "unavailable", "interrupted": "its end was not seen",
}  # fmt: skip
_WORDS = {"ru": _RU, "en": _EN}


def subject_of(call: Call, language: str) -> str:
    """What the call's ticket is called."""
    words = _WORDS[language]
    who = " ".join(filter(None, (call.customer_name, call.customer_number))) or words["hidden"]
    return f"{words[_sort(call)]}: {who}"[:500]


def summary_of(call: Call, language: str, timezone: str) -> str:
    """The call in a few lines: when, whence, who talked how long, how it ended."""
    words = _WORDS[language]
    lines = [words[_sort(call)], f"{words['began']}: {_clock(call.started_at, timezone)}"]
    if call.line:
        lines.append(f"{words['line']}: {call.line}")
    if call.queue:
        lines.append(f"{words['queue']}: {call.queue}")
    if call.rang:
        lines.append(f"{words['rang']}: {', '.join(call.rang)}")
    if call.result is Result.ANSWERED:
        talked = list(dict.fromkeys(filter(None, (call.answered_by, *(move.target for move in call.transfers if move.completed), call.last_talked))))
        lines.append(f"{words['with']}: {', '.join(talked)}" if talked else "")
        lines.append(f"{words['talked']}: {_duration(call.talk_seconds)}")
    lines.append(f"{words['waited']}: {_duration(call.wait_seconds)}")
    if call.result is not None and call.result is not Result.VOICEMAIL:
        lines.append(f"{words['result']}: {words[str(call.result)]}")
    return "\n".join(filter(None, lines))


def returned(call: Call, signal: CalledBack, language: str, timezone: str) -> str:
    """That the missed call was returned: how, when, by whom."""
    words = _WORDS[language]
    by = f" ({words['by'].format(by=signal.by)})" if signal.by else ""
    return f"{words.get(signal.how, signal.how)}: {_clock(signal.at, timezone)}{by}"


def recording_of(call: Call, language: str, timezone: str) -> str:
    """Beside a recording that came after the call's note."""
    return _WORDS[language]["recording_of"].format(at=_clock(call.started_at, timezone))


def _sort(call: Call) -> str:
    if call.result is Result.VOICEMAIL:
        return "voicemail"
    return "missed" if call.missed else "in" if call.direction is Direction.IN else "out"


def _clock(at: float, timezone: str) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(timezone)).strftime("%d.%m.%Y %H:%M:%S")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
