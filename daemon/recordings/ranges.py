"""HTTP's conditions and ranges (RFC 9110, sections 13 and 14), as far as players use them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Version:
    """What a file was when it was looked at: bytes, and nanoseconds of its last change."""

    size: int
    changed_ns: int

    @property
    def etag(self) -> str:
        """A strong tag: another content has another size or time."""
        return f'"{self.changed_ns:x}-{self.size:x}"'

    @property
    def last_modified(self) -> str:
        return format_datetime(datetime.fromtimestamp(self.changed_ns // 1_000_000_000, UTC), usegmt=True)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `end`, the last one not included."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """The range lies beyond the file: 416."""


def wanted_part(header: str | None, if_range: str | None, version: Version) -> Part | None:
    """The part that is asked for; None: the whole, also for several ranges at once, another unit, or a changed file. Raises Unsatisfiable."""
    if header is None or (if_range is not None and not _still(if_range, version)):
        return None
    found = _RANGE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = int(found[2])
        if length == 0 or version.size == 0:
            raise Unsatisfiable
        return Part(max(0, version.size - length), version.size)
    start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else version.size, version.size)
    if found[2] and int(found[2]) < start:
        return None
    if start >= version.size:
        raise Unsatisfiable
    return Part(start, end)


def is_unchanged(if_none_match: str | None, if_modified_since: str | None, version: Version) -> bool:
    """Whether the asker has it already: 304."""
    if if_none_match is not None:
        tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        return "*" in tags or version.etag in tags
    since = _time(if_modified_since)
    return since is not None and version.changed_ns // 1_000_000_000 <= since


def _still(if_range: str, version: Version) -> bool:
    if if_range.startswith('"'):
        return if_range == version.etag
    return _time(if_range) == version.changed_ns // 1_000_000_000  # a weak tag is no date either: the whole file


def _time(text: str | None) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp()) if text else None
    except (ValueError, TypeError, OverflowError):
        return None
