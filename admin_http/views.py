"""Templates into pages: one jinja environment per language, with the formats of numbers and times."""

from __future__ import annotations

import contextlib
import hashlib
import zoneinfo
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jinja2
import phonenumbers
from babel.dates import format_date, format_timedelta
from babel.numbers import format_decimal, format_percent
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.bccache import Bucket, FileSystemBytecodeCache
from jinja2.runtime import Context

from admin_http.texts import LANGUAGES, sentences, translations

HERE = Path(__file__).parent
STATIC = HERE / "static"
SHORT_CHARS = 300
# Marks in a User-Agent, the more special first: each of them calls itself by the names of those after it too.
_BROWSERS = (("Yandex", "YaBrowser/"), ("Edge", "Edg/"), ("Opera", "OPR/"), ("Firefox", "Firefox/"), ("Chrome", "Chrome/"), ("Safari", "Safari/"))
_SYSTEMS = (("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("macOS", "Mac OS X"), ("Linux", "Linux"))


class Compiled(FileSystemBytecodeCache):
    """Templates as Python's bytecode, kept beside them as Python keeps its own: to compile one takes up to 0.2 s, in which the event loop would
    stand still. `make setup` compiles all; what was edited since is compiled when it is first shown. A directory that may not be written stays as it is.
    """

    def __init__(self, directory: Path, language: str) -> None:
        super().__init__(str(directory), f"{language}.jinja-{jinja2.__version__}.%s")  # filters of constants are part of the code, and speak a language

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keeps it for the next start, if it can."""
        with contextlib.suppress(OSError):
            Path(self.directory).mkdir(exist_ok=True)
            super().dump_bytecode(bucket)


class Views:
    """Renders templates. Everything a template shows is escaped; a name it does not get is an error, not a blank.

    `compiled`: the directory where compiled templates are kept.
    """

    def __init__(self, compiled: Path = HERE / "templates/__pycache__") -> None:
        self._environments = {language: _environment(language, Compiled(compiled, language)) for language in LANGUAGES}

    def compile(self) -> None:
        """Compiles what is not compiled yet: seconds, for `make setup`."""
        for environment in self._environments.values():
            for name in environment.list_templates(extensions=["html"]):
                environment.get_template(name)

    def render(self, template: str, language: str, context: Mapping[str, Any]) -> str:
        """The page as text."""
        return self._environments[language].get_template(template).render(context)

    def text(self, language: str, message: str, **values: Any) -> str:
        """A text in this language, with its `%(name)s` filled in."""
        return translations(language).gettext(message) % values if values else translations(language).gettext(message)

    def said(self, language: str, sentence: str) -> str:
        """What a check or an error says, in this language as far as its form is known."""
        return sentences(language).say(sentence)


@cache
def asset(name: str) -> str:
    """Where a file of static/ is found; the address changes with its content, so that browsers may keep it for ever."""
    return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]}"


def _environment(language: str, compiled: Compiled) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n", "jinja2.ext.do"],
        auto_reload=False,
        bytecode_cache=compiled,
        cache_size=400,
    )
    environment.install_gettext_translations(translations(language), newstyle=True)  # type: ignore[attr-defined]
    environment.globals["asset"] = asset
    # `_("…")` gives markup, so it takes literals only; `t(value)` translates what may hold a stranger's text, which is then escaped.
    environment.globals["t"] = translations(language).gettext
    environment.filters.update({
        "when": _when, "day": _day, "typed": _typed, "clock": _clock, "ago": _ago, "duration": duration,
        "number": lru_cache(maxsize=4_096)(lambda value: format_decimal(value, locale=language) if value is not None else "–"),
        "percent": lambda value: format_percent(value, format="#,##0.0%", locale=language) if value is not None else "–",
        "date": lambda text: _spelled(date.fromisoformat(text), "d MMM y", language) if text else "…",
        "phone": phone, "browser": browser, "said": _say(language),
    })  # fmt: skip
    return environment


def _say(language: str) -> Callable[[str | None], str]:
    """Sentences of checks and errors in this language. A list has few and says them often, each is compared with hundreds of forms: short ones are kept."""
    say = sentences(language).say
    kept = lru_cache(maxsize=4_096)(say)
    return lambda text: "" if not text else kept(text) if len(text) <= SHORT_CHARS else say(text)


def moment(value: float | str | datetime) -> datetime:
    """A time from what the daemon gives: Unix seconds, ISO 8601 text, or an aware datetime."""
    if isinstance(value, datetime):
        return value
    return datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)


# A table has a time or two in every row: what spells a day or a span of time is kept, it costs more than the row.
@lru_cache(maxsize=4_096)
def _spelled(day: date, pattern: str, language: str) -> str:
    return format_date(day, pattern, locale=language)


@lru_cache(maxsize=4_096)
def _span(seconds: int, language: str) -> str:
    return format_timedelta(timedelta(seconds=seconds), add_direction=True, locale=language)


def _local(context: Context, value: Any) -> datetime:
    return moment(value).astimezone(zoneinfo.ZoneInfo(context["zone"]))


@pass_context
def _when(context: Context, value: Any) -> str:
    """21 Nov 2026, 14:05:07 in the enterprise's zone; a dash for None."""
    if value is None:
        return "–"
    local = _local(context, value)
    return f"{_spelled(local.date(), 'd MMM y', context['language'])}, {local:%H:%M:%S}"


@pass_context
def _day(context: Context, value: Any) -> str:
    return _spelled(_local(context, value).date(), "d MMMM y", context["language"]) if value is not None else "–"


@pass_context
def _typed(context: Context, value: str | None) -> str:
    """A day (ISO 8601) as the language types it: 21.11.2026 in Russian; in English as ISO has it, for 11/12 is read both ways there."""
    return ".".join(reversed(value.split("-"))) if value and context["language"] == "ru" else value or ""


@pass_context
def _clock(context: Context, value: Any) -> str:
    return f"{_local(context, value):%H:%M:%S}" if value is not None else "–"


@pass_context
def _ago(context: Context, value: Any) -> str:
    if value is None:
        return "–"
    seconds = round((moment(value) - datetime.now(UTC)).total_seconds())
    step = 1 if abs(seconds) < 120 else 60 if abs(seconds) < 7_200 else 3_600
    return _span(round(seconds / step) * step, context["language"])


def duration(seconds: float | None) -> str:
    """1:05:09 or 2:07."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def browser(agent: str | None) -> str:
    """A User-Agent as people speak of it: Firefox, Linux. What is unknown keeps its own first words. Pure."""
    text = agent or ""
    name = next((name for name, mark in _BROWSERS if mark in text), "")
    system = next((system for system, mark in _SYSTEMS if mark in text), "")
    return ", ".join(filter(None, (name, system))) or text[:40] or "–"


@lru_cache(maxsize=4_096)
def _phone(text: str) -> str:
    try:
        parsed = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return text
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL) if phonenumbers.is_possible_number(parsed) else text


def phone(text: str | None) -> str:
    """+375 29 625-40-70 for E.164, anything else as it is."""
    return "–" if text is None else _phone(text) if text.startswith("+") and len(text) < 20 else text
