"""The keys that secrets are sealed with."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.progress import Progress

from daemon.commands.common import run_work
from daemon.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="The keys that secrets are sealed with.")


@commands.callback()
def _group() -> None:
    """Keys and what is made of them."""


@commands.command("alerts")
def keys_alerts() -> None:
    """The secret that alerts to VOCHID_ALERT_URL are signed with, as receivers of Standard Webhooks take it."""
    from daemon.telemetry.alerts import shown_secret
    from daemon.wiring.alerts import PURPOSE
    from daemon.wiring.resources import open_vault

    async def work(settings: Settings) -> str:
        return shown_secret(open_vault(settings).derived_keys(PURPOSE)[0])

    print(run_work(work))


@commands.command("rotate")
def keys_rotate() -> None:
    """Seals every secret anew with the first of VOCHID_SECRET_KEYS. Can be repeated, and broken off, at any time."""
    from daemon.store.sealed import Rotation, rotate
    from daemon.wiring.resources import open_database, open_vault

    async def work(settings: Settings) -> Rotation:
        async with open_database(settings, own=False, apply=True) as db:
            with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
                task = bar.add_task("secrets", total=None)
                return await rotate(db, open_vault(settings), lambda done, of: bar.update(task, completed=done, total=of))

    done = run_work(work)
    for failure in done.failed:
        print(f"FAIL  {failure}")
    print(f"{done.changed} sealed anew, {done.sealed} under the newest key, {len(done.failed)} cannot be opened")
    if done.failed:
        raise typer.Exit(1)
    print("the older keys still find tokens that were given out (clientIds, secrets, cabinet and recording links): keep them until those are renewed")
