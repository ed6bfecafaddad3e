"""Passwords: argon2id in a small thread pool, so that neither the event loop nor the memory is at a stranger's mercy."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from daemon.errors import VochidError

MIN_LENGTH, MAX_LENGTH = 10, 200
AT_ONCE = 2
MAX_WAITING = 40  # at about 30 ms each nobody waits longer than a second

# RFC 9106 and OWASP: 19 MiB, two passes, one lane.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class Passwords:
    """Hashes and checks. Raises VochidError (busy) when too many wait already."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "argon2")
        self._waiting = 0
        self._nobody = _HASHER.hash("a password that nobody has")

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The hash to store. Raises VochidError (weak_password) naming what is wrong."""
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise VochidError("a password has 10 to 200 characters", code="weak_password", field="password")
        if len(set(password)) < 4:
            raise VochidError("this password is too simple", code="weak_password", field="password")
        return str(await self._run(_HASHER.hash, password))

    async def check(self, stored: str | None, password: str) -> bool:
        """Whether it is the password. Takes as long for a person who does not exist."""
        good = await self._run(_verify, stored or self._nobody, password[:MAX_LENGTH])
        return bool(good) and stored is not None

    async def _run(self, work: object, *arguments: str) -> object:
        if self._waiting >= MAX_WAITING:
            raise VochidError("too many people log in at this moment: try again in a few seconds", code="busy")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)  # type: ignore[arg-type]
        finally:
            self._waiting -= 1


def _verify(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False
