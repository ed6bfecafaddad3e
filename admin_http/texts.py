"""The pages' languages. English is what stands in the code; Russian comes from locales/ru/*.po, one file per part of the admin.

What checks and errors say is made elsewhere and comes here as text: `sentences(language).say(text)`.

The catalogues are compiled in memory at start, in a few milliseconds: there is no build step to forget.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import Translations

from admin_http.sentences import Sentences

LANGUAGES = ("ru", "en")  # the first is what a stranger gets
LOCALES = Path(__file__).parent / "locales"


def N_(text: str) -> str:
    """Marks a text that is translated where it is shown."""
    return text


@cache
def translations(language: str) -> Translations:
    """The catalogue of a language; texts that it does not have stay as they are."""
    found = Translations()
    for path in sorted((LOCALES / language).glob("*.po")):
        with path.open("rb") as file:
            catalog = read_po(file, locale=language)
        compiled = io.BytesIO()
        write_mo(compiled, catalog)
        compiled.seek(0)
        found = found.merge(Translations(compiled)) if found.files or found._catalog else Translations(compiled)
    return found


@cache
def sentences(language: str) -> Sentences:
    """What checks, errors and reasons say, in a language. English is as it is."""
    found: dict[str, str] = {}
    for path in sorted((LOCALES / language).glob("*.po")):
        with path.open("rb") as file:
            messages = [(m.id, m.string) for m in read_po(file, locale=language)]
        found |= {source: other for source, other in messages if isinstance(source, str) and " " in source and isinstance(other, str) and other}
    return Sentences(found)
