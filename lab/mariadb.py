"""A real MariaDB on loopback, for CDR in MySQL: the distribution's server, unpacked beside the system and not installed, started for one test run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomysql

from lab.asterisk import LabUnavailable, cache_dir
from lab.office import free_port
from lab.run import short_directory

PACKAGE = "mariadb-server-core"  # 8 MB
SYSTEM_TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
START_DEADLINE_S = 60.0


def ensure_server() -> Path:
    """The directory the server is unpacked in, fetched through apt when it is not there yet. Raises LabUnavailable."""
    root = cache_dir() / "mariadb"
    if (root / "usr/sbin/mariadbd").exists():
        return root
    building = root.with_name(f"{root.name}.building-{os.getpid()}")
    (building / "deb/partial").mkdir(parents=True)
    fetch = ["apt-get", "install", "-y", "-qq", "--download-only", "--no-install-recommends", "-o", f"Dir::Cache::archives={building}/deb"]
    try:
        try:
            _run([*fetch, "-o", "Debug::NoLocking=1", PACKAGE])
        except LabUnavailable:  # apt knows of no packages yet, or of old ones
            _run(["apt-get", "update", "-qq"])
            _run([*fetch, "-o", "Debug::NoLocking=1", PACKAGE])
        packages = sorted((building / "deb").glob("*.deb"))
        if not any(package.name.startswith(PACKAGE) for package in packages):
            raise LabUnavailable(f"{PACKAGE} is installed on this machine: apt fetches nothing to unpack")
        for package in packages:
            _run(["dpkg", "-x", str(package), str(building)])
        shutil.rmtree(building / "deb")
        with contextlib.suppress(OSError):  # another run was faster
            building.rename(root)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabUnavailable(f"no MariaDB: {error}") from None
    if done.returncode != 0:
        raise LabUnavailable(f"no MariaDB: {' '.join(command[:2])} says {done.stderr.strip()[-300:]}")


@asynccontextmanager
async def mariadb(root: Path) -> AsyncIterator[str]:
    """A running server with an empty database and a user of its own; gives their URL, mysql://USER:PASSWORD@127.0.0.1:PORT/asteriskcdrdb."""
    home, port, password = short_directory("vochid-maria-"), free_port(), secrets.token_hex(8)
    libraries = ":".join(str(path) for top in ("usr/lib", "lib") for path in [root / top, *(root / top).glob("*-linux-*")])
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    common = [
        str(root / "usr/sbin/mariadbd"), "--no-defaults", f"--datadir={home}/data", f"--lc-messages-dir={root}/usr/share/mysql",
        f"--character-sets-dir={root}/usr/share/mysql/charsets", "--innodb-log-file-size=4M", *(["--user=root"] if os.geteuid() == 0 else []),
    ]  # fmt: skip
    (home / "data").mkdir()
    try:
        await _make_database(root, common, environment, password)
        with (home / "log").open("wb") as log:
            serve = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={home}/socket", f"--pid-file={home}/pid"]
            server = await asyncio.create_subprocess_exec(*common, *serve, env=environment, stdout=log, stderr=log)
        try:
            await _answers(server, port, password, home / "log")
            yield f"mysql://vochid:{password}@127.0.0.1:{port}/asteriskcdrdb"
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.terminate()
            await server.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _make_database(root: Path, common: list[str], environment: dict[str, str], password: str) -> None:
    script = ["create database mysql;", "use mysql;", "set @auth_root_socket=NULL, @skip_auth_anonymous=1;"]
    script += [(root / "usr/share/mysql" / name).read_text() for name in SYSTEM_TABLES]
    script += ["flush privileges;", "create database asteriskcdrdb character set utf8mb4;"]
    script += [f"create user vochid@'127.0.0.1' identified by '{password}';", "grant all on asteriskcdrdb.* to vochid@'127.0.0.1';", ""]
    pipe = asyncio.subprocess.PIPE
    made = await asyncio.create_subprocess_exec(*common, "--bootstrap", env=environment, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    said, _ = await asyncio.wait_for(made.communicate("\n".join(script).encode()), START_DEADLINE_S)
    if made.returncode != 0:
        raise LabUnavailable(f"MariaDB made no database: {said.decode(errors='replace')[-500:]}")


async def _answers(server: asyncio.subprocess.Process, port: int, password: str, log: Path) -> None:
    for _ in range(int(START_DEADLINE_S * 20)):
        if server.returncode is not None:
            break
        with contextlib.suppress(aiomysql.Error, OSError):
            connection = await aiomysql.connect(host="127.0.0.1", port=port, user="vochid", password=password, db="asteriskcdrdb")
            connection.close()
            return
        await asyncio.sleep(0.05)
    raise LabUnavailable(f"MariaDB did not start: {log.read_text(errors='replace')[-500:]}")
