"""The daemon itself: run, demo, migrate, doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from daemon.commands.common import run_work
from daemon.settings import Settings
from daemon.telemetry.logs import configure

commands = typer.Typer()


@commands.command()
def run() -> None:
    """The daemon; with the embedded PostgreSQL unless VOCHID_DATABASE_URL is set."""
    from daemon.lifecycle import serve

    run_work(serve, quiet=False)


@commands.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop when all is played and checked (default when output is no terminal).")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Recorded calls on a fake PBX, as without root.")] = False,
) -> None:
    """A lab PBX, a CRM sandbox, the daemon, and live calls between them."""
    from daemon.lifecycle import run_async
    from lab.demo import play_demo

    configure("error", None)
    if not run_async(play_demo(once=once or not sys.stdout.isatty(), force_replay=replay)):
        raise typer.Exit(1)


@commands.command()
def migrate() -> None:
    """Applies sql/ to the database."""
    from daemon.store.migrate import migrate as apply
    from daemon.wiring.resources import open_server

    async def work(settings: Settings) -> int:
        async with open_server(settings, own=False) as url:
            return await apply(url, progress=lambda text: print(f"applying {text}", file=sys.stderr))

    done = run_work(work)
    print(f"{done} migrations applied" if done else "the schema is up to date")


@commands.command()
def doctor(
    enterprise: Annotated[str | None, typer.Option("--enterprise", help="Only this one.")] = None,
    asterisk_conf: Annotated[Path | None, typer.Option("--asterisk-conf", help="The PBX's configuration directory, to be read too.")] = None,
) -> None:
    """Checks database, keys, PBXs and CRMs; a line each, exit 1 on a failure."""
    from daemon.doctor import examine

    failed = 0

    async def work(settings: Settings) -> None:
        nonlocal failed
        async for check in examine(settings, enterprise, asterisk_conf):
            failed += not check.ok
            print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}{': ' + check.detail if check.detail else ''}", flush=True)

    run_work(work)
    if failed:
        raise typer.Exit(1)
