"""Our block in an entity's COMMENTS: what has no field of its own at the portal, in a form that people can read and that reads back. Pure.

    — vochid —
    IMEI: 350000000000017
    Тип: трактор
    — конец vochid —

A line per value; a line break inside of one is written as \\n, a backslash twice. Everything around the block is people's and stays. The portal may turn
line breaks into <br> and quote what looks like HTML: both are read.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from enum import StrEnum


class Wording(StrEnum):
    """The language of the labels; both are read."""

    RU = "ru"
    EN = "en"


_BEGIN, _END = "— vochid —", "— /vochid —"
_LABELS: Mapping[Wording, Mapping[str, str]] = {
    Wording.RU: {"role": "Роль", "created": "Создан", "updated": "Изменён", "number": "Номер договора", "starts_on": "Начало", "ends_on": "Окончание",
                 "contract": "Договор", "imei": "IMEI", "type": "Тип", "description": "Описание"},
    Wording.EN: {"role": "Role", "created": "Created", "updated": "Changed", "number": "Contract number", "starts_on": "Begins", "ends_on": "Ends",
                 "contract": "Contract", "imei": "IMEI", "type": "Type", "description": "Description"},
}  # fmt: skip
_NAMES = {label: name for labels in _LABELS.values() for name, label in labels.items()}
_BREAKS = re.compile(r"(?:<br\s*/?>|\[br\]|</p>|\[/p\])\n?|\r\n?", re.IGNORECASE)
_TAGS = re.compile(r"</?(?:p|div|span)\b[^>]{0,200}>|\[p\]", re.IGNORECASE)
_BLOCK = re.compile(rf"{re.escape(_BEGIN)}[ ]*\n(.*?){re.escape(_END)}", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)")


def with_block(text: str, values: Mapping[str, str], wording: Wording) -> str:
    """`text` with our block in it: where it was, else at the end."""
    lines = [f"{_LABELS[wording][name]}: {_escaped(value)}" for name, value in values.items()]
    block = "\n".join([_BEGIN, *lines, _END])
    plain = _plain(text) if _BLOCK.search(text) is None else text
    found = _BLOCK.search(plain)
    if found is not None:
        return plain[: found.start()] + block + plain[found.end() :]
    return f"{text.rstrip()}\n{block}" if text.strip() else block


def read_block(text: str) -> dict[str, str] | None:
    """Our block's values; None where there is no block, for then nothing is known."""
    quoted = _BLOCK.search(text)
    plain = text if quoted is not None else _plain(text)
    found = quoted or _BLOCK.search(plain)
    if found is None:
        return None
    values: dict[str, str] = {}
    for line in found[1].split("\n"):
        label, colon, value = line.strip().partition(":")
        name = _NAMES.get(label.strip()) if colon else None
        if name is not None and value.strip():
            values[name] = _ESCAPE.sub(lambda one: "\n" if one[1] == "n" else one[1], value.strip())
    return values


def _escaped(value: str) -> str:
    """Line breaks of every kind count as one, or the block could not be read line by line; a value cannot end the block."""
    lines = value.replace("\\", "\\\\").replace("\r\n", "\n").replace("\r", "\n").replace("—", "\\—")
    return lines.replace("\n", "\\n")


def _plain(text: str) -> str:
    return html.unescape(_TAGS.sub("", _BREAKS.sub("\n", text)))
