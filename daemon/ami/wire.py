"""AMI on the wire: bytes to frames, actions to bytes. Pure.

Facts (Asterisk main/manager.c, 13 to 22): a message is `Key: value` lines ended by CRLF, closed by an empty
line; keys are case-insensitive and repeat; values are raw bytes in any encoding; the banner is one line
without an empty line after it. A frame keeps its bytes and decodes a value when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from functools import lru_cache

MAX_FRAME_BYTES = 256 * 1024  # the largest honest frame seen is a few kB; a queue's list item is smaller still
MAX_HEADERS = 1_000  # ChanVariable repeats; Asterisk itself never comes near
MAX_SKIP_BYTES = 64 * 1024 * 1024  # an "endless" frame is skipped this far before the link is given up
MAX_BANNER_BYTES = 256
MAX_LINE_BYTES = 1_000  # manager.c reads lines into inbuf[1025]; a longer one discards the whole action
MAX_ACTION_LINES = 100  # AST_MAX_MANHEADERS is 128

_END = b"\r\n\r\n"
# A write that Asterisk abandoned midway leaves its half glued to the next event (before 16.26/18.12).
_GLUED = re.compile(rb"Event: [A-Za-z]+\r\nPrivilege: ")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED_AS = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class WireError(Exception):
    """The peer does not speak AMI: the link cannot go on."""


class ActionError(ValueError):
    """A value that must not go onto the wire: a bug or an attack on our side, never the peer's."""


@lru_cache(maxsize=1_024)
def _line_of(header: str) -> bytes:
    """How the line of a header begins, with the line break before it."""
    return b"\r\n" + header.encode() + b":"


class Frame:
    """One message as it came. Equality is by bytes.

    `get` answers the first value of a header as it is spelled, else in any other case; a header without a value is the empty string.
    """

    __slots__ = ("_lines", "event", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._lines: bytes | None = None  # in lower case, each with its line break before it; made when one is not there as it is spelled
        if raw.startswith(b"Event: "):
            end = raw.find(b"\r\n", 7)
            self.event = raw[7 : end if end >= 0 else len(raw)].decode("ascii", "replace")
        else:
            self.event = self.get("Event") or "" if b"vent:" in raw else ""

    def get(self, header: str) -> str | None:
        """The first value of `header`, undecodable bytes replaced; None when the header is absent.

        Looked up among the bytes: of a frame's thirty headers few are ever asked for, and Asterisk spells them always alike.
        """
        key = _line_of(header)
        found = self.raw.find(key)
        if found >= 0:
            return self._value(found + len(key))
        lines = self._lines
        if lines is None:
            lines = self._lines = b"\r\n" + self.raw.lower()
        found = lines.find(key.lower())
        return None if found < 0 else self._value(found + len(key) - 2)

    def _value(self, start: int) -> str:
        """What stands from `start` to the end of the line, without the blank after the colon."""
        end = self.raw.find(b"\r\n", start)
        value = self.raw[start:end] if end >= 0 else self.raw[start:]
        return (value[1:] if value.startswith(b" ") else value).decode("utf-8", "replace")

    def _parsed(self) -> dict[bytes, list[bytes]]:
        headers: dict[bytes, list[bytes]] = {}
        for line in self.raw.split(b"\r\n"):
            key, colon, value = line.partition(b":")
            if colon:
                headers.setdefault(key.lower(), []).append(value[1:] if value.startswith(b" ") else value)
        return headers

    def get_all(self, header: str) -> list[str]:
        """Every value of `header`, in order."""
        return [value.decode("utf-8", "replace") for value in self._parsed().get(header.lower().encode(), [])]

    def items(self) -> Iterator[tuple[str, str]]:
        """Every header with its first value, keys in lower case."""
        for key, values in self._parsed().items():
            yield key.decode("ascii", "replace"), values[0].decode("utf-8", "replace")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Frame({self.raw[:120]!r})"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A frame that could not be used, with why: `oversize`, `headers` or `truncated`. Something was not seen."""

    reason: str
    size_bytes: int


class FrameReader:
    """Cuts a byte stream into frames, whatever its chunking; holds at most MAX_FRAME_BYTES.

    `feed` returns frames and Skipped markers in order and raises WireError when no end of frame comes for
    MAX_SKIP_BYTES. The result does not depend on how the stream was cut. Events of the names in `noise` are left out on their first bytes.
    """

    def __init__(self, noise: Set[bytes] = frozenset()) -> None:
        self._noise = noise
        self._parts: list[bytes] = []
        self._size = 0
        self._last = b""
        self._skipping_bytes = 0

    def feed(self, data: bytes) -> list[Frame | Skipped]:
        if not data:
            return []
        if _END not in self._last + data:
            self._keep(data)
            return []
        stream = b"".join((*self._parts, data)) if self._parts else data
        self._parts, self._size, self._last = [], 0, b""
        frames: list[Frame | Skipped] = []
        whole = stream.split(_END)
        rest = whole.pop()
        if self._skipping_bytes:
            frames.append(Skipped("oversize", self._skipping_bytes + len(whole.pop(0))))
            self._skipping_bytes = 0
        noise = self._noise
        for raw in whole:
            end = _plain_until(raw)
            if end == 0:
                frames.extend(_accept(raw))
            elif raw[7:end] not in noise:
                frames.append(Frame(raw))
        if rest:
            self._keep(rest)
        return frames

    def _keep(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self._last = (self._last + data)[-3:]
        if self._size > MAX_FRAME_BYTES:
            self._skipping_bytes += self._size - len(self._last)
            self._parts, self._size = [self._last], len(self._last)
            if self._skipping_bytes > MAX_SKIP_BYTES:
                raise WireError(f"no end of message within {MAX_SKIP_BYTES} bytes")


def _plain_until(raw: bytes) -> int:
    """Where the name ends of an event of which nothing is to be judged: all of it, of a size and a number of lines that no limit is about.

    Nearly all are. 0 for anything else.
    """
    if len(raw) >= 2 * MAX_HEADERS or not raw.startswith(b"Event: ") or raw.find(b"Event: ", 7) >= 0:  # each line has two bytes at least
        return 0
    end = raw.find(b"\r\n", 7)
    last = raw[len(raw) - 1]
    return 0 if end < 0 or last == 13 or last == 10 else end


def _accept(raw: bytes) -> Iterable[Frame | Skipped]:
    raw = raw.strip(b"\r\n")
    if not raw:
        return
    if len(raw) > MAX_FRAME_BYTES:
        yield Skipped("oversize", len(raw))
        return
    start = 0
    if raw.find(b"Event: ", 7) > 0:
        for glued in _GLUED.finditer(raw, 1):
            if raw[: glued.start()].endswith(b"Variable: ") or raw[: glued.start()].endswith(b"Value: "):
                continue
            yield Skipped("truncated", glued.start() - start)
            start = glued.start()
    raw = raw[start:]
    if raw.count(b"\r\n") >= MAX_HEADERS:
        yield Skipped("headers", len(raw))
        return
    yield Frame(raw)


def read_banner(data: bytes) -> tuple[str, bytes] | None:
    """Splits the greeting off the first bytes: (AMI version, rest), or None while its line is incomplete.

    Raises WireError when the first line is not `Asterisk Call Manager/<version>` (manager.c sends it with one CRLF).
    """
    line, end, rest = data.partition(b"\n")
    if not end:
        if len(data) > MAX_BANNER_BYTES or not _could_be_banner(data):
            raise WireError(f"not an Asterisk manager port: it greets with {_printable(data)}")
        return None
    if not line.startswith(_BANNER):
        raise WireError(f"not an Asterisk manager port: it greets with {_printable(line)}")
    return line[len(_BANNER) :].strip(b"\r ").decode("ascii", "replace"), rest


_BANNER = b"Asterisk Call Manager/"


def _could_be_banner(data: bytes) -> bool:
    return data[: len(_BANNER)] == _BANNER[: len(data)]


def _printable(data: bytes) -> str:
    return repr(data[:60].decode("ascii", "replace"))


def unescape(value: str) -> str:
    """Undoes the C escapes that Asterisk puts into names and VarSet values (ast_escape_c_alloc)."""
    if "\\" not in value:
        return value
    return _ESCAPE.sub(lambda match: _ESCAPED_AS.get(match[1], match[1]), value)


def encode_action(headers: Iterable[tuple[str, str]]) -> bytes:
    """An action's bytes, headers in the order given.

    Raises ActionError for CR, LF or NUL anywhere, a bad key, a line over MAX_LINE_BYTES or too many lines:
    nothing on Asterisk's side would strip an injected header.
    """
    lines: list[bytes] = []
    for key, value in headers:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", key):
            raise ActionError(f"header name {key!r} cannot be sent")
        if any(forbidden in value for forbidden in "\r\n\0"):
            raise ActionError(f"{key}: line breaks and NUL cannot be sent to Asterisk")
        line = f"{key}: {value}".encode()
        if len(line) > MAX_LINE_BYTES:
            raise ActionError(f"{key}: longer than {MAX_LINE_BYTES} bytes, Asterisk would discard the action")
        lines.append(line)
    if not lines or len(lines) > MAX_ACTION_LINES:
        raise ActionError(f"an action has 1 to {MAX_ACTION_LINES} lines, this one {len(lines)}")
    return b"\r\n".join(lines) + _END


def escape_variable(value: str) -> str:
    """A channel variable's value as Originate's `Variable` header wants it: backslash before `\\`, `"` and `,`."""
    return re.sub(r'([\\",])', r"\\\1", value)
