"""Secrets at rest: sealed with the instance's key, bound to their enterprise and field. Pure but for the key file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from daemon.errors import SettingsError, VochidError

FORMAT = "v1"


class VaultError(VochidError):
    """A sealed secret cannot be opened; says which and why, never what."""

    code = "vault"


class Vault:
    """Seals with the newest key, opens with any. Keys are strings of at least 32 characters, newest first."""

    def __init__(self, keys: list[str]) -> None:
        if not keys:
            raise SettingsError("no secret key is set", field="secret_keys")
        for key in keys:
            if len(key) < 32:
                raise SettingsError("a secret key has at least 32 characters: make one with `openssl rand -hex 32`", field="secret_keys")
        self._keys = {_key_id(key): _fernet(key) for key in keys}
        self._newest = _key_id(keys[0])
        self._hash_keys = [hashlib.sha256(b"vochid token hash" + key.encode()).digest() for key in keys]

    def seal(self, secret: str, enterprise: str, field: str) -> str:
        """`v1:<key id>:<token>`. What it belongs to is inside, so that it cannot be moved to another place."""
        envelope = json.dumps({"e": enterprise, "f": field, "s": secret}).encode()
        return self._encrypted(envelope)

    def open(self, sealed: str, enterprise: str, field: str) -> str:
        """The secret. Raises VaultError when its key is missing, it was changed, or it belongs elsewhere."""
        envelope = json.loads(self._decrypted(sealed, f"{field} of enterprise {enterprise}"))
        if (envelope["e"], envelope["f"]) != (enterprise, field):
            raise VaultError(f"{field} of enterprise {enterprise} belongs to another place: set it anew")
        return str(envelope["s"])

    def reseal(self, sealed: str, what: str) -> str:
        """The same secret for the same place under the newest key; `what` names it in a VaultError."""
        return self._encrypted(self._decrypted(sealed, what))

    def _encrypted(self, envelope: bytes) -> str:
        return f"{FORMAT}:{self._newest}:{self._keys[self._newest].encrypt(envelope).decode()}"

    def _decrypted(self, sealed: str, what: str) -> bytes:
        version, _, rest = sealed.partition(":")
        key_id, _, token = rest.partition(":")
        if version != FORMAT or key_id not in self._keys:
            raise VaultError(f"{what} was sealed with a key that is not here: add it to VOCHID_SECRET_KEYS or set it anew")
        try:
            return self._keys[key_id].decrypt(token.encode())
        except InvalidToken:
            raise VaultError(f"{what} is damaged: set it anew") from None

    def token_hashes(self, token: str) -> list[bytes]:
        """What an inbound token is stored and found by: one keyed hash per key, newest first."""
        return [hmac.digest(key, token.encode(), "sha256") for key in self._hash_keys]

    def derived_keys(self, purpose: str) -> list[bytes]:
        """Keys for signing one kind of thing, newest first: what one signs proves nothing for another purpose."""
        return [hmac.digest(key, b"derived for " + purpose.encode(), "sha256") for key in self._hash_keys]

    def knows(self, sealed: str) -> bool:
        """Whether its key is here."""
        version, _, rest = sealed.partition(":")
        return version == FORMAT and rest.partition(":")[0] in self._keys

    def is_newest(self, sealed: str) -> bool:
        """Whether it is sealed with the newest key."""
        return sealed.split(":")[:2] == [FORMAT, self._newest]


def load_keys(configured: str | None, key_file: Path | None, data_dir: Path) -> list[str]:
    """The keys: from the setting, from its file, else generated once below `data_dir` with mode 0600."""
    if configured:
        text = configured
    elif key_file is not None:
        try:
            text = key_file.read_text()
        except OSError as error:
            raise SettingsError(f"the secret keys' file cannot be read: {error}", field="secret_keys_file") from None
    else:
        text = _generated(data_dir / "secret_keys")
    return [key.strip() for key in text.replace("\n", ",").split(",") if key.strip()]


def _generated(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        return path.read_text()


def _key_id(key: str) -> str:
    return hashlib.sha256(b"vochid key id" + key.encode()).hexdigest()[:8]


def _fernet(key: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"vochid sealing" + key.encode()).digest()))
