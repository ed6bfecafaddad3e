"""What the commands share: settings, database, and how answers are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from daemon.errors import SettingsError
from daemon.settings import Settings, load_settings
from daemon.telemetry.logs import configure

T = TypeVar("T")

EnterpriseOption = Annotated[str, typer.Option("--enterprise", help="The enterprise's number.")]


def run_work(work: Callable[[Settings], Awaitable[T]], *, quiet: bool = True) -> T:
    from daemon.lifecycle import run_async

    settings = load_settings()
    configure("error" if quiet else settings.log_level, settings.log_format)

    async def go() -> T:
        return await work(settings)

    return run_async(go())


@asynccontextmanager
async def open_house(settings: Settings) -> AsyncIterator[Any]:
    """The tenants' service on the settings' database, for one command."""
    from daemon.wiring.resources import open_database, open_tenants, open_vault

    async with open_database(settings, own=False, apply=True) as db:
        tenants = open_tenants(settings, db, open_vault(settings))
        yield tenants, db


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table for people; tab-separated lines in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    table = Table(*head, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def read_documents(file: Path) -> list[Any]:
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    try:
        loaded = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{file} is not JSON: {error}") from None
    return loaded if isinstance(loaded, list) else [loaded]
