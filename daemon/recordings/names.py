"""A recording's name, as a PBX gave it, to a place below the source's root. Pure. The names are hostile input."""

from __future__ import annotations

import re

MAX_NAME_BYTES = 1_024
MAX_PART_BYTES = 255
MAX_DEPTH = 16
SIBLINGS = (".mp3", ".ogg", ".wav", ".WAV")  # PBXs that convert after the call keep the stem and change the ending

_TYPES = {
    ".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".opus": "audio/ogg", ".oga": "audio/ogg", ".gsm": "audio/x-gsm",
    ".m4a": "audio/mp4", ".flac": "audio/flac",
}  # fmt: skip
UNKNOWN_TYPE = "application/octet-stream"
_SAFE = re.compile(r"[^0-9A-Za-z._+-]+")


def parts_of(name: str, pbx_path: str) -> tuple[str, ...] | None:
    """The steps from the source's root to the file: the name without the leading `pbx_path`, else its last component.

    None for a name that must not be followed: parents, control characters, beyond the bounds, not UTF-8.
    """
    root = pbx_path.rstrip("/")
    rest = name[len(root) + 1 :] if name.startswith(root + "/") else name.rsplit("/", 1)[-1]
    parts = tuple(part for part in rest.split("/") if part not in ("", "."))
    if not parts or len(parts) > MAX_DEPTH or len(name) > MAX_NAME_BYTES:
        return None
    return parts if all(map(_is_plain, parts)) else None


def _is_plain(part: str) -> bool:
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return False
    return part != ".." and size <= MAX_PART_BYTES and not any(ord(c) < 32 or ord(c) == 127 for c in part)


def candidates(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The file itself, then the same recording under another ending."""
    *above, last = parts
    stem = last.rpartition(".")[0] or last
    names = dict.fromkeys([last, *(stem + ending for ending in SIBLINGS)])
    return [(*above, name) for name in names]


def ending_of(name: str) -> str:
    """The ending in lower case with its dot; wav49's `.WAV` counts as `.wav`. Empty for what is no audio we know."""
    dot, ending = name[-6:].rpartition(".")[1:]
    ending = f"{dot}{ending}".lower()
    return ending if ending in _TYPES else ""


def content_type(name: str) -> str:
    """What a player is told."""
    return _TYPES.get(ending_of(name), UNKNOWN_TYPE)


def download_name(name: str, ending: str = "") -> str:
    """A name that is safe in a header and on any disk: letters, digits and dots, never hidden, at most 100 characters."""
    stem = name.rsplit("/", 1)[-1]
    own = ending_of(stem)
    stem = _SAFE.sub("_", stem[: -len(own)] if own else stem).strip("._")[:90] or "recording"
    return stem + (ending or own)
