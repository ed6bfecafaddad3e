"""The database in one file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.commands.common import run_work
from daemon.settings import Settings

commands = typer.Typer()


@commands.command("backup")
def backup(file: Annotated[Path, typer.Argument(help="Where to; it is replaced.")]) -> None:
    """Writes the whole database into one file, beside a running daemon. The keys are not in it."""
    from daemon.store.backup import dump
    from daemon.wiring.resources import open_server

    async def work(settings: Settings) -> str:
        async with open_server(settings, own=False) as url:
            size = await dump(url, file.absolute())
        keys = "VOCHID_SECRET_KEYS" if settings.secret_keys else str(settings.secret_keys_file or settings.data_dir / "secret_keys")
        return f"{file}: {size} bytes\nthe keys are not in it, and without them its secrets cannot be opened: keep {keys} in another place"

    print(run_work(work))


@commands.command("restore")
def restore(file: Path) -> None:
    """Fills a new, empty database from a backup; whole or not at all."""
    from daemon.store.backup import restore as fill
    from daemon.store.migrate import migrate
    from daemon.wiring.resources import open_server

    async def work(settings: Settings) -> str:
        async with open_server(settings, own=False) as url:
            uncertain = await fill(url, file.absolute())
            applied = await migrate(url)
        return f"restored; {applied} migrations applied; {uncertain} deliveries may have arrived since: CRMs are asked first\nnow: vochid doctor"

    print(run_work(work))
