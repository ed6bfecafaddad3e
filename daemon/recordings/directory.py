"""Recordings that lie in a directory of this host. Opened step by step below the root, no link is followed on the way.

Blocking: these functions run on the recordings' own threads, so that a hanging file server holds up nothing else.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from daemon.recordings.look import MISSING, UNKNOWN, Look, State
from daemon.recordings.names import candidates
from daemon.recordings.ranges import Version

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file in hand; whoever gets it closes `fd`. `name` is its own last component."""

    fd: int
    name: str
    version: Version


def open_below(root: str, parts: tuple[str, ...]) -> OpenFile | None:
    """The recording below `root`, under its own or a sibling's ending; None when there is none. Raises OSError when the root cannot be read.

    Only the root itself may be a symbolic link: it is the operator's, what is below it is the PBX's.
    """
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for names in candidates(parts):
            if (found := _walk(top, names)) is not None:
                return found
    finally:
        os.close(top)
    return None


def look_below(root: str, parts: tuple[str, ...]) -> Look:
    """How the file stands now."""
    try:
        found = open_below(root, parts)
    except OSError:
        return UNKNOWN
    if found is None:
        return MISSING
    os.close(found.fd)
    return Look(State.THERE, found.version.size, found.version.changed_ns / 1e9)


def remove_below(root: str, parts: tuple[str, ...]) -> int:
    """Deletes the recording below `root`, under its own and its siblings' endings; gives how many files went. Raises OSError where one stays."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sum(_remove(top, names) for names in candidates(parts))
    finally:
        os.close(top)


def _remove(top: int, parts: tuple[str, ...]) -> bool:
    found = _walk(top, parts)
    if found is None:
        return False
    os.close(found.fd)
    at = os.dup(top)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        os.unlink(parts[-1], dir_fd=at)
    finally:
        os.close(at)
    return True


def _walk(top: int, parts: tuple[str, ...]) -> OpenFile | None:
    at = os.dup(top)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        fd = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    finally:
        os.close(at)
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        os.close(fd)
        return None
    return OpenFile(fd, parts[-1], Version(about.st_size, about.st_mtime_ns))
