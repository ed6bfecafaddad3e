"""Reads Asterisk's .conf files as Asterisk does, includes and all; the lines themselves are read by pyst2's parser."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from daemon.errors import VochidError

MAX_DEPTH = 8
MAX_LINES = 200_000

_INCLUDE = re.compile(r"\s*#(try)?include\s+[\"<]?([^\">;]+?)[\">]?\s*(;.*)?$")
_CATEGORY = re.compile(r"\s*\[([^\]]+)\]\s*(\([^)]*\))?\s*(;.*)?$")


@dataclass
class Section:
    """One [name] with its items in order, and the file in which it begins."""

    name: str
    file: str
    items: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """The last value of a name, as most options are read."""
        return next((value for key, value in reversed(self.items) if key == name), None)


def read_conf(paths: list[Path], root: Path) -> list[Section]:
    """The sections of these files with everything they include, in order. `root`: what includes are relative to.

    Raises VochidError for a file that no Asterisk could read.
    """
    lines: list[tuple[str, str]] = []
    for path in paths:
        _expand(path, root, lines, 0)
    return _sections(lines)


def _expand(path: Path, root: Path, lines: list[tuple[str, str]], depth: int) -> None:
    if depth > MAX_DEPTH or len(lines) > MAX_LINES:
        raise VochidError(f"{path.name}: files include each other without an end", code="bad_conf")
    for line in path.read_text(errors="replace").splitlines():
        included = _INCLUDE.match(line)
        if included is None:
            lines.append((path.name, line))
            continue
        for found in sorted(root.glob(included[2].strip().removeprefix(f"{root}/").lstrip("/"))):
            if found.is_file():
                _expand(found, root, lines, depth + 1)


def _sections(lines: list[tuple[str, str]]) -> list[Section]:
    """pyst2 knows neither templates nor additions nor directives: `[a](!,b)` is given to it as `[a]`, a `#` line as nothing."""
    from asterisk.config import Config, ParseError

    plain = []
    for _, line in lines:
        category = _CATEGORY.match(line)
        plain.append(f"[{category[1]}]" if category else "" if line.lstrip().startswith("#") else line)

    class Parsed(Config):  # type: ignore[misc]
        """Its own way to the lines opens a file and never closes it."""

        def load(self) -> None:
            self.raw_lines = plain

    try:
        parsed = Parsed("")
    except ParseError as error:
        number, what = (*error.args, "", "")[:2]
        where = lines[number - 1][0] if isinstance(number, int) and 0 < number <= len(lines) else "the file"
        raise VochidError(f"{where}: {what}", code="bad_conf") from None
    sections = []
    for category in parsed.categories:
        items = [(item.name.strip(), item.value.strip()) for item in category.items]
        sections.append(Section(category.name, lines[category.number - 1][0], items))
    return sections
