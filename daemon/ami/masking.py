"""Outside numbers and names made unrecognisable in AMI bytes, so that a trace may leave the house. Pure."""

from __future__ import annotations

import hashlib
import re
import secrets

_NUMBER = re.compile(rb"(?<![\d.])\+?\d{9,15}(?![\d.])")
_NAME = re.compile(rb"(?m)^((?:[A-Za-z]*CallerIDName|[A-Za-z]*ConnectedLineName): )([^\r\n]+)")


class Masker:
    """Changes outside numbers and all names, the same one always in the same way within one recording."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)

    def mask(self, data: bytes) -> bytes:
        """Numbers keep their length and their beginning; Uniqueids (`seconds.number`) are left alone."""
        return _NAME.sub(lambda m: m[1] + (m[2] if m[2] == b"<unknown>" else b"Name-" + self._code(m[2])[:4]), _NUMBER.sub(self._number, data))

    def _number(self, match: re.Match[bytes]) -> bytes:
        number = match[0]
        digits = str(int(self._code(number.lstrip(b"+")), 16)).encode()
        return number[:-6] + digits[-6:]

    def _code(self, value: bytes) -> bytes:
        return hashlib.sha256(self._salt + value).hexdigest()[:16].encode()
