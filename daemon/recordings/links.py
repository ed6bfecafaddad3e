"""Signed links: short enough for a CRM's 255 characters, bound to one file of one call of one enterprise. Pure.

A link is base64url of the claims and a 128-bit HMAC-SHA-256 over them, then the file's ending, which players look at and nothing trusts.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.errors import NotFound
from daemon.recordings.names import ending_of

MAX_LENGTH = 200
MAC_BYTES = 16
MAX_INDEX = 65_535
_HEAD = struct.Struct(">16sHBQQ")  # call, index, flags, expiry (Unix s), epoch
_MP3 = 1


@dataclass(frozen=True, slots=True)
class Claims:
    """What a link opens: the `index`-th recording of a call, until `expires_at` (Unix s), while the epoch stands."""

    enterprise: str
    call_id: str
    index: int
    expires_at: int
    epoch: int
    mp3: bool = False


def sign(claims: Claims, key: bytes, ending: str = "") -> str:
    """The last part of the link's path."""
    head = _HEAD.pack(uuid.UUID(claims.call_id).bytes, claims.index, _MP3 if claims.mp3 else 0, claims.expires_at, claims.epoch)
    body = head + claims.enterprise.encode("ascii")
    return base64.urlsafe_b64encode(body + _mac(key, body)).rstrip(b"=").decode() + ending


def read(text: str, keys: Sequence[bytes]) -> Claims | None:
    """The claims of a link that one of `keys` signed; None for anything else. Says nothing about expiry and epoch."""
    token = text.partition(".")[0]
    if len(text) > MAX_LENGTH or not token.isascii():
        return None
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    body, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
    if len(body) <= _HEAD.size or not any([hmac.compare_digest(mac, _mac(key, body)) for key in keys]):
        return None
    call, index, flags, expires_at, epoch = _HEAD.unpack_from(body)
    return Claims(body[_HEAD.size :].decode("ascii"), str(uuid.UUID(bytes=call)), index, expires_at, epoch, bool(flags & _MP3))


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:MAC_BYTES]


class RecordingLinks:
    """Makes and reads links. `epoch` gives an enterprise's epoch, None when there is no such enterprise; `keys` newest first; `root` is where
    they are served."""

    def __init__(self, keys: Sequence[bytes], epoch: Callable[[str], int | None], root: str = "/recordings/") -> None:
        self._root = root
        self._keys = keys
        self._epoch = epoch

    def link(self, enterprise: str, call_id: str, index: int, lives_s: float, *, name: str = "", mp3: bool = False) -> str:
        """The path of a link to the `index`-th recording, good for `lives_s` seconds. `name` lends its ending; `mp3`: as MP3.

        Raises NotFound for an enterprise that is not there.
        """
        epoch = self._epoch(enterprise)
        if epoch is None:
            raise NotFound(f"there is no enterprise {enterprise}")
        claims = Claims(enterprise, call_id, min(index, MAX_INDEX), int(time.time() + lives_s), epoch, mp3)
        return self._root + sign(claims, self._keys[0], ".mp3" if mp3 else ending_of(name))

    def read(self, text: str) -> Claims | None:
        """The claims of a link that is signed and not past its time."""
        claims = read(text, self._keys)
        return claims if claims is not None and claims.expires_at > time.time() else None
