"""English sentences of checks and errors in another language. Pure.

Checks, errors and reasons are sentences with values in them ("there is no enterprise 0367"), made where they happen and kept as text: in logs,
in the database, in what the API answers. A page knows their forms, written with numbered holes ("there is no enterprise %(1)s"), finds the one
that a sentence was made by, and says it anew. What no form fits stays as it is: a CRM's own words are shown as the CRM said them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_LENGTH = 1_000  # a longer text is no sentence of ours
MAX_DEPTH = 3  # a sentence in a sentence in a sentence
HOLE = re.compile(r"%\((\d)\)s")


@dataclass(frozen=True, slots=True)
class Form:
    """What a sentence is made by: the text between its holes, the holes' names, and the other language's form."""

    between: tuple[str, ...]
    holes: tuple[str, ...]
    other: str

    @classmethod
    def read(cls, source: str, other: str) -> Form:
        """A form as the catalogue has it."""
        parts = HOLE.split(source)
        return cls(tuple(parts[::2]), tuple(parts[1::2]), other)

    @property
    def weight(self) -> int:
        """How much text it fixes: the heaviest form that fits is the right one."""
        return sum(map(len, self.between))

    def values(self, text: str) -> dict[str, str] | None:
        """What fills the holes, each up to where the following text is found first; None when the text was not made by this form."""
        first, *middle, last = self.between
        if len(text) < self.weight or not text.startswith(first) or not text.endswith(last):
            return None
        place, end, found = len(first), len(text) - len(last), []
        for piece in middle:
            at = text.find(piece, place, end)
            if at < 0:
                return None
            found.append(text[place:at])
            place = at + len(piece)
        return dict(zip(self.holes, [*found, text[place:end]], strict=True)) if place <= end else None


class Sentences:
    """`known`: by English form; one without a hole is a whole sentence."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._whole = {source: other for source, other in known.items() if not HOLE.search(source)}
        self._forms = sorted((Form.read(source, other) for source, other in known.items() if HOLE.search(source)), key=lambda form: -form.weight)

    def say(self, text: str, depth: int = 0) -> str:
        """The sentence, or several parted by semicolons, in the other language; as it is where it is not known."""
        if len(text) > MAX_LENGTH or depth > MAX_DEPTH or not text:
            return text
        if text in self._whole:
            return self._whole[text]
        for form in self._forms:
            values = form.values(text)
            if values is not None:
                said = {name: self.say(value, depth + 1) for name, value in values.items()}
                return HOLE.sub(lambda hole, said=said: said.get(hole[1], ""), form.other)  # type: ignore[misc]
        parts = text.split("; ")
        return "; ".join(self.say(part, depth + 1) for part in parts) if len(parts) > 1 else text
