"""What the call model must know of a PBX: who is a trunk, who is a colleague, which lines are ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from daemon.model.phone import digits_of, shown_number, to_e164

MAX_EXTENSION_LENGTH = 32
MAX_REMEMBERED = 8_192

T = TypeVar("T")


class Remembered(dict[str, T]):
    """Answers of a pure function of a text, kept since the same numbers are asked for with every event. Bounded: when full, forgotten."""

    def __init__(self, function: Callable[[str], T]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, text: str) -> T:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        answer = self[text] = self._function(text)
        return answer


@dataclass(frozen=True)
class PbxView:
    """One PBX as its enterprise's document describes it. `boot` names the PBX's start, so that ids never collide."""

    enterprise: str
    pbx: str
    country: str = "BY"
    trunks: tuple[str, ...] = ()
    inbound_contexts: frozenset[str] = frozenset()
    internal_context: str | None = None
    internal_number: str = r"^\d{2,4}$"
    internal_phones: frozenset[str] = frozenset()
    lines: tuple[str, ...] = ()
    employee_mobiles: frozenset[str] = frozenset()
    boot: str = field(default="", compare=False)

    @cached_property
    def _internal(self) -> re.Pattern[str]:
        return re.compile(self.internal_number)

    @cached_property
    def _lines_by_digits(self) -> dict[str, str]:
        return {digits_of(line): line for line in self.lines}

    def is_trunk(self, channel: str) -> bool:
        """Whether a channel name belongs to an external line."""
        return channel.startswith(self._trunk_prefixes) or channel in self.trunks

    @cached_property
    def _trunk_prefixes(self) -> tuple[str, ...]:
        return tuple([f"{trunk}{end}" for trunk in self.trunks for end in "-/"])

    def is_extension(self, number: str | None) -> bool:
        """Whether this is one of the enterprise's internal numbers."""
        return bool(number) and self.extensions[number or ""]

    # What is asked of every channel again and again stands open, to be asked without a call: for texts that are not empty.

    @cached_property
    def extensions(self) -> Remembered[bool]:
        """`is_extension` of a text."""

        def ask(number: str) -> bool:
            if len(number) > MAX_EXTENSION_LENGTH:
                return False
            return number in self.internal_phones or self._internal.search(number) is not None

        return Remembered(ask)

    def number(self, text: str | None) -> str | None:
        """A party's number: E.164 where it can be, else its digits, None when withheld."""
        return self.numbers[text] if text else None

    @cached_property
    def numbers(self) -> Remembered[str | None]:
        """`number` of a text."""
        return Remembered(lambda text: shown_number(text, self.country))

    def is_phone(self, text: str | None) -> bool:
        """Whether somebody dialled this to reach the outside world."""
        return bool(text) and self._phones[text or ""]

    @cached_property
    def _phones(self) -> Remembered[bool]:
        def ask(text: str) -> bool:
            return bool(re.fullmatch(r"\+?[0-9]{3,20}", text)) and (to_e164(text, self.country) is not None or len(digits_of(text)) >= 6)

        return Remembered(ask)

    def line(self, text: str | None) -> str | None:
        """The line of ours that `text` names, compared by digits (a DID may come without its plus); else its number."""
        if not text:
            return None
        known = self.known_line(text)
        return known if known is not None else self.number(text)

    def known_line(self, text: str | None) -> str | None:
        """The configured line that `text` names, or None."""
        return self.known_lines[text] if text else None

    @cached_property
    def known_lines(self) -> Remembered[str | None]:
        """`known_line` of a text."""

        def ask(text: str) -> str | None:
            return self._lines_by_digits.get(digits_of(text)) or self._lines_by_digits.get(digits_of(self.number(text) or ""))

        return Remembered(ask)
