"""The texts of the pages that Russian does not have yet: `.venv/bin/python tools/texts.py` prints them as catalogue entries.

A new text is written in English where it is shown; its Russian goes into one of admin_http/locales/ru/*.po. A test sees to it that none is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po

ROOT = Path(__file__).resolve().parent.parent
ADMIN = ROOT / "admin_http"
ERRORS = ("VochidError", "LoginRefused", "NotFound", "SettingsError", "Forbidden")
WITH_ERRORS = (*ADMIN.rglob("*.py"), ROOT / "daemon/people/service.py", ROOT / "daemon/security/passwords.py")


def texts() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every text that a page may show, with the file that has it; of one with a plural both forms."""
    keywords = {"_": None, "N_": None, "text": None, "ngettext": (1, 2), **dict.fromkeys(ERRORS)}
    for method, paths in (("jinja2.ext:babel_extract", ADMIN.rglob("*.html")), ("python", WITH_ERRORS)):
        for path in paths:
            for _, message, _, _ in extract_from_file(
                method, str(path), keywords=keywords, options={"silent": "false", "trimmed": "true", "extensions": "jinja2.ext.do"}
            ):
                forms = (message,) if isinstance(message, str) else tuple(part for part in message if isinstance(part, str))
                yield path.relative_to(ROOT).as_posix(), forms


def translated(language: str) -> set[str]:
    """The texts that the catalogues of a language have."""
    found = set()
    for path in (ADMIN / "locales" / language).glob("*.po"):
        found |= set(read_catalogue(path))
    return found


def read_catalogue(path: Path) -> list[str]:
    """The texts that a catalogue translates; of one with a plural its singular."""
    with path.open("rb") as file:
        messages = [(m.id if isinstance(m.id, str) else m.id[0], m) for m in read_po(file, locale=path.parent.name)]
    return [text for text, message in messages if text and message.string and all(message.string) and not message.fuzzy]


def missing(language: str) -> list[tuple[str, tuple[str, ...]]]:
    """What is not translated, each text once."""
    have = translated(language)
    found = {forms[0]: (where, forms) for where, forms in texts() if forms[0] and forms[0] not in have}
    return list(found.values())


if __name__ == "__main__":
    for where, forms in missing("ru"):
        quoted = [form.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for form in forms]
        print(f'#: {where}\nmsgid "{quoted[0]}"')
        print('msgstr ""\n' if len(forms) == 1 else f'msgid_plural "{quoted[1]}"\nmsgstr[0] ""\nmsgstr[1] ""\nmsgstr[2] ""\n')
    sys.exit(1 if missing("ru") else 0)
