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
    from daemon.store.sealed import Carried, Rotation
    from daemon.wiring.keys import rotate_all
    from daemon.wiring.resources import open_database, open_tenants, open_vault

    async def work(settings: Settings) -> tuple[Rotation, Carried]:
        async with open_database(settings, own=False, apply=True) as db:
            with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
                task = bar.add_task("secrets", total=None)
                vault = open_vault(settings)
                return await rotate_all(db, vault, open_tenants(settings, db, vault), lambda done, of: bar.update(task, completed=done, total=of))

    done, carried = run_work(work)
    for failure in done.failed:
        print(f"FAIL  {failure}")
    print(f"{done.changed} sealed anew, {done.sealed} under the newest key, {len(done.failed)} cannot be opened")
    if done.failed:
        raise typer.Exit(1)
    print(f"{carried.moved} tokens that others prove themselves with are found by the newest key now; clientIds and secrets outlive the older keys")
    for one in carried.ending:
        print(f"ends with the older keys: {one}")
    if carried.ending:
        print("register those integrations again before you take the older keys away: that makes new ones")
    print("links to recordings that CRMs were given, and logged-in devices, are signed with the older keys: keep them as long as those links are to play")
