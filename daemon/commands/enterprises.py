"""Tenants as documents: list, show, apply, pause, resume, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.asterisk.snippets import snippets
from daemon.commands.common import open_house, print_json, print_table, read_documents, run_work
from daemon.errors import NotFound, SettingsError
from daemon.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="Tenants as documents.")


@commands.command("list")
def enterprise_list() -> None:
    """All enterprises."""

    async def work(settings: Settings) -> list[tuple[str, ...]]:
        async with open_house(settings) as (tenants, _):
            await tenants.load()
            return [
                (
                    number,
                    t.enterprise.name,
                    "paused" if t.enterprise.paused else "active",
                    ", ".join(p.name for p in t.enterprise.pbxs),
                    ", ".join(t.integrations),
                )
                for number, t in tenants.all().items()
            ]

    print_table(("number", "name", "state", "pbxs", "integrations"), run_work(work))


@commands.command("show")
def enterprise_show(
    number: str,
    sealed: Annotated[bool, typer.Option("--sealed", help="With secrets, sealed with this instance's key.")] = False,
    asterisk: Annotated[bool, typer.Option("--asterisk", help="What to put onto its PBXs, instead; without secrets.")] = False,
) -> None:
    """One enterprise's document."""
    if asterisk:
        print(run_work(lambda settings: _snippets(settings, number)), end="")
        return

    async def work(settings: Settings) -> dict[str, Any]:
        async with open_house(settings) as (tenants, _):
            document, _ = await tenants.document(number, sealed=sealed)
            return dict(document)

    print_json(run_work(work))


async def _snippets(settings: Settings, number: str) -> str:
    async with open_house(settings) as (tenants, _):
        await tenants.load()
        tenancy = tenants.get(number)
        if tenancy is None:
            raise NotFound(f"there is no enterprise {number}")
        return snippets(tenancy.enterprise, settings.fastagi)


@commands.command("apply")
def enterprise_apply(file: Annotated[Path, typer.Argument(help="A document, or a list of them; - reads standard input.")]) -> None:
    """Creates or changes enterprises; doing it twice changes nothing."""
    documents = read_documents(file)

    async def work(settings: Settings) -> list[str]:
        async with open_house(settings) as (tenants, _):
            lines = []
            for document in documents:
                number = document.get("number") if isinstance(document, dict) else None
                if not isinstance(number, str):
                    raise SettingsError("every document needs a number, as text", field="number")
                before = (await tenants.document(number))[1] if await _exists(tenants, number) else None
                _, etag, created = await tenants.put(number, document)
                lines.append(f"{number}: {'created' if created else 'unchanged' if etag == before else 'changed'}")
            return lines

    print("\n".join(run_work(work)))


async def _exists(tenants: Any, number: str) -> bool:
    try:
        await tenants.document(number)
    except NotFound:
        return False
    return True


@commands.command("pause")
def enterprise_pause(number: str) -> None:
    """Stops reading its PBXs and telling its CRMs; nothing stored is lost."""
    _set_paused(number, True)


@commands.command("resume")
def enterprise_resume(number: str) -> None:
    """The opposite of pause."""
    _set_paused(number, False)


def _set_paused(number: str, paused: bool) -> None:
    async def work(settings: Settings) -> None:
        async with open_house(settings) as (tenants, _):
            await tenants.set_paused(number, paused)

    run_work(work)
    print(f"{number}: {'paused' if paused else 'resumed'}")


@commands.command("remove")
def enterprise_remove(number: str, purge: Annotated[bool, typer.Option("--purge", help="Its calls and deliveries too.")] = False) -> None:
    """Removes an enterprise; its calls stay until retention unless --purge."""

    async def work(settings: Settings) -> None:
        async with open_house(settings) as (tenants, _):
            await tenants.remove(number, purge=purge)

    run_work(work)
    print(f"{number}: removed{', with everything stored of it' if purge else ''}")
