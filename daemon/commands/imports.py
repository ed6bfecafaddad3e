"""Taking over from the predecessor."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from daemon.commands.common import open_house, run_work
from daemon.errors import NotFound, SettingsError, VochidError
from daemon.settings import Settings

commands = typer.Typer()


@commands.command("import")
def import_(source: Annotated[str, typer.Option("--from", help="The predecessor's database: postgresql://user:password@host/database.")]) -> None:
    """Takes enterprises over from the predecessor's database, which is only read; doing it twice changes nothing."""
    from daemon.tenants.predecessor_db import read_predecessor

    async def work(settings: Settings) -> list[str]:
        sources = await read_predecessor(source)
        async with open_house(settings) as (tenants, _):
            lines: list[str] = []
            for one in track(sources, "taking over", console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()):
                done, remarks = await _take(tenants, one)
                lines.append(f"{one.number}: {done}")
                lines += [f"  {remark}" for remark in remarks]
            return [*lines, f"{len(sources)} enterprises read"]

    print("\n".join(run_work(work)))


async def _take(tenants: Any, source: Any) -> tuple[str, list[str]]:
    """Stores one enterprise; gives what became of it and what was left out."""
    from daemon.tenants.predecessor import document_of

    try:
        existing, before = await tenants.document(source.number, sealed=True)
    except NotFound:
        existing, before = None, None
    document, remarks = document_of(source, tenants.kinds, existing)
    while True:
        try:
            _, etag, created = await tenants.put(source.number, document)
        except SettingsError as error:
            part, _, rest = (error.field or "").partition(".")
            name = rest.partition(".")[0]
            if part != "integrations" or name not in document["integrations"] or (existing and name in existing["integrations"]):
                return f"not taken: {error.field}: {error}", remarks
            document = {**document, "integrations": {key: value for key, value in document["integrations"].items() if key != name}}
            remarks.append(f"not taken: {error.field}: {error}")
        except VochidError as error:
            if error.code != "token_taken" or "secret" not in document or existing:
                raise
            document = {key: value for key, value in document.items() if key != "secret"}
            remarks.append("secret replaced by a random one, because another enterprise has the same: whoever uses it needs the new one")
        else:
            return ("created" if created else "unchanged" if etag == before else "changed"), remarks
