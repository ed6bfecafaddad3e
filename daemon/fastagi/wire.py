r"""FastAGI on the wire: bytes in, requests and answers out; commands to bytes. Pure.

Facts (Asterisk res/res_agi.c, 13 to 23): the environment is `agi_name: value` lines ended by LF and closed by an empty line,
raw bytes, nothing escaped; an answer is one line, except a usage answer, which begins with `520-` and ends with a line that
begins with `520 ` (its short form is a single `520 ` line); `HANGUP` is a line of its own and may come anywhere. A command
is one line of at most 2,047 bytes before 20.16 and 22.6: what is longer is cut there and its rest is run as a command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

MAX_ENV_LINES = 64
MAX_ENV_BYTES = 16 * 1024
MAX_ANSWER_BYTES = 16 * 1024  # a usage text of 520 is a few kB
MAX_COMMAND_BYTES = 2_000
FAILURE = b"failure\n"  # ends AGI with AGISTATUS=FAILURE

_ANSWER = re.compile(r"(\d{3})(?: result=(-?\d+))?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,78}")


class AgiError(Exception):
    """The peer does not speak AGI, or beyond all bounds: the dialogue cannot go on. Its text says which bound."""


class CommandError(ValueError):
    """A value that must not go onto the wire: a bug or an attack on our side, never the peer's."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the dialplan asked. Values are text: UTF-8, or Latin-1 where the bytes are not UTF-8."""

    env: Mapping[str, str]

    @property
    def script(self) -> str:
        """The path without slashes and query: `smart-redirect`."""
        return unquote(self._script.partition("?")[0]).strip("/")

    @property
    def enterprise(self) -> str:
        """The first argument, else ?enterprise=; empty when there is neither."""
        return self.arg(1) or dict(parse_qsl(self._script.partition("?")[2])).get("enterprise", "")

    @property
    def phone(self) -> str:
        """The second argument, else the caller's number; empty when Asterisk does not know it."""
        number = self.arg(2) or self.env.get("agi_callerid", "")
        return "" if number == "unknown" else number

    @property
    def line(self) -> str:
        """The third argument: the number that was dialled, as the dialplan knows it; empty when it does not say."""
        return self.arg(3)

    @property
    def channel(self) -> str:
        return self.env.get("agi_channel", "")

    @property
    def uniqueid(self) -> str:
        return self.env.get("agi_uniqueid", "")

    def arg(self, number: int) -> str:
        """agi_arg_N, or empty."""
        return self.env.get(f"agi_arg_{number}", "").strip()

    @property
    def _script(self) -> str:
        return self.env.get("agi_network_script", "")


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a command. `result` is None where the code is not 200."""

    code: int
    result: int | None = None


@dataclass(frozen=True, slots=True)
class HungUp:
    """The caller is gone; variables can still be set, nobody will read them."""


Item = Request | Answered | HungUp


class AgiReader:
    """Cuts a connection's bytes into a Request and what follows it, whatever the chunking. Raises AgiError."""

    def __init__(self) -> None:
        self._buffer = b""
        self._env: dict[str, str] | None = {}
        self._env_lines = 0
        self._env_bytes = 0
        self._usage_bytes = 0
        self._in_usage = False

    def feed(self, data: bytes) -> list[Item]:
        """Takes what was read; gives what it completed, in order."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        items = [item for line in lines if (item := self._line(line)) is not None]
        if self._env is not None and self._env_bytes + len(self._buffer) > MAX_ENV_BYTES:
            raise AgiError(f"the environment is longer than {MAX_ENV_BYTES} bytes")
        if len(self._buffer) > MAX_ANSWER_BYTES:
            raise AgiError(f"an answer is longer than {MAX_ANSWER_BYTES} bytes")
        return items

    def _line(self, line: bytes) -> Item | None:
        line = line.removesuffix(b"\r")
        return self._answer_line(line) if self._env is None else self._env_line(self._env, line)

    def _env_line(self, env: dict[str, str], line: bytes) -> Request | None:
        if not line:
            self._env = None
            return Request(env)
        self._env_lines += 1
        self._env_bytes += len(line) + 1
        if self._env_lines > MAX_ENV_LINES:
            raise AgiError(f"the environment has more than {MAX_ENV_LINES} lines")
        if self._env_bytes > MAX_ENV_BYTES:
            raise AgiError(f"the environment is longer than {MAX_ENV_BYTES} bytes")
        name, colon, value = _text(line).partition(":")
        if not colon:
            raise AgiError("a line of the environment has no colon")
        if name.strip() in env:  # a caller's name with a line break in it: whoever sent it must not say which call this is
            raise AgiError("a name stands twice in the environment")
        env[name.strip()] = value.strip()
        return None

    def _answer_line(self, line: bytes) -> Item | None:
        if line == b"HANGUP":
            return HungUp()
        if self._in_usage:
            self._usage_bytes += len(line)
            if self._usage_bytes > MAX_ANSWER_BYTES:
                raise AgiError(f"an answer is longer than {MAX_ANSWER_BYTES} bytes")
            if not line.startswith(b"520 "):
                return None
            self._in_usage = False
            return Answered(520)
        if line.startswith(b"520-"):
            self._in_usage, self._usage_bytes = True, 0
            return None
        if not line:
            return None
        found = _ANSWER.match(_text(line))
        if found is None:
            raise AgiError("an answer does not begin with a code")
        return Answered(int(found[1]), int(found[2]) if found[2] is not None and found[1] == "200" else None)


def set_variable(name: str, value: str) -> bytes:
    """The command that sets a channel variable. Raises CommandError for what cannot travel in one line."""
    if not _VARIABLE.fullmatch(name):
        raise CommandError("a variable's name is letters, digits and underscores")
    if any(character in value for character in "\r\n\0"):
        raise CommandError(f"{name}: a value has no line breaks")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    try:
        command = f'SET VARIABLE {name} "{escaped}"\n'.encode()
    except UnicodeEncodeError:
        raise CommandError(f"{name}: half of a character") from None
    if len(command) > MAX_COMMAND_BYTES:
        raise CommandError(f"{name}: the command is longer than {MAX_COMMAND_BYTES} bytes")
    return command


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")
