"""The process's own parts: settings from every source, tasks that are owned, logs, systemd's datagrams."""

from __future__ import annotations

import ast
import asyncio
import json
import socket
from pathlib import Path

import pytest

from daemon import settings as settings_module
from daemon.errors import SettingsError
from daemon.lifecycle import notify
from daemon.live import MAX_WAITING, Live
from daemon.settings import load_settings
from daemon.supervisor import Supervisor
from daemon.telemetry.logs import configure

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP", "DATA_DIR", "SECRET_KEYS", "ADMIN_TOKEN", "EGRESS_ALLOW", "NODE", "LOG_FORMAT"):
        monkeypatch.delenv(f"VOCHID_{name}", raising=False)
    monkeypatch.setattr(settings_module, "CONFIG_FILE", tmp_path / "vochid.toml")


def test_the_defaults_are_the_documented_ones() -> None:
    settings = load_settings()
    assert (str(settings.http), str(settings.fastagi), str(settings.metrics)) == ("127.0.0.1:8019", "127.0.0.1:4573", "127.0.0.1:9319")
    assert settings.base_url == "http://127.0.0.1:8019"
    assert settings.admin_bearer() is None


def test_the_environment_wins_over_credentials_and_those_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vochid.toml").write_text('http = "127.0.0.1:1"\nnode = "file"\nadmin_token = "file"\n')
    (tmp_path / "vochid_admin_token").write_text("credential\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("VOCHID_HTTP", "[::1]:2")
    settings = load_settings()
    assert (str(settings.http), settings.node, settings.admin_bearer()) == ("[::1]:2", "file", "credential")


def test_a_broken_file_and_an_unreadable_secret_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOCHID_ADMIN_TOKEN_FILE", "/nowhere")
    with pytest.raises(SettingsError, match="VOCHID_ADMIN_TOKEN_FILE"):
        load_settings().admin_bearer()
    (tmp_path / "vochid.toml").write_text("http = ")
    with pytest.raises(SettingsError, match=r"vochid\.toml"):
        load_settings()


async def test_a_service_that_fails_is_started_again_and_takes_nobody_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.supervisor.RESTART_FIRST_S", 0.01)
    supervisor, runs, alive = Supervisor("t"), 0, asyncio.Event()

    async def failing() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise RuntimeError("x")
        alive.set()
        await asyncio.Event().wait()

    async def quiet() -> None:
        await asyncio.Event().wait()

    supervisor.serve("failing", failing)
    supervisor.serve("quiet", quiet)
    await asyncio.wait_for(alive.wait(), 30)
    assert (supervisor.health["failing"].restarts, supervisor.health["quiet"].restarts) == (2, 0)
    with pytest.raises(RuntimeError, match="running already"):
        supervisor.serve("quiet", quiet)
    await supervisor.stop()
    assert supervisor.health == {}


async def test_stopping_ends_services_and_jobs() -> None:
    supervisor = Supervisor("t")
    job = supervisor.job("forever", asyncio.sleep(100))
    supervisor.serve("service", lambda: asyncio.sleep(100))
    await supervisor.stop()
    assert job.cancelled()


def test_only_the_supervisor_creates_tasks() -> None:
    makers = {"create_task", "ensure_future", "TaskGroup"}
    for room in ("daemon", "adapters", "admin_http"):
        for path in (ROOT / room).rglob("*.py"):
            if path.name == "supervisor.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    assert node.func.attr not in makers, f"{path}:{node.lineno}"


def test_logs_are_json_without_secrets_and_whole_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    import structlog

    configure("info", "json")
    structlog.get_logger().info("called", api_key="abcdef", phone="+375296254070", note="from +375296254070\x1b[0m")
    structlog.get_logger().debug("not shown")
    [line] = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert event["api_key"] == "***"
    assert "296254070" not in line
    structlog.reset_defaults()


def test_systemd_is_told_by_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notify("READY=1")
        assert listening.recv(100) == b"READY=1"
    notify("nobody listens any more")


def test_a_service_manager_that_does_not_read_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.lifecycle.NOTIFY_DEADLINE_S", 0.001)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        listening.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        for _ in range(600):  # systemd itself lets 512 wait
            notify("WATCHDOG=1")
        assert listening.recv(100) == b"WATCHDOG=1"


def test_a_watcher_that_does_not_read_loses_the_oldest_news_and_blocks_nobody() -> None:
    live = Live()
    with live.watch("1") as slow:
        for n in range(MAX_WAITING + 10):
            live.tell("1", "call", {"id": n})
            live.tell("2", "call", {"id": n})
        assert slow.qsize() == MAX_WAITING
        assert slow.get_nowait().data == {"id": 10}
    assert not live.has_watchers("1")
