"""API tokens of an enterprise."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from daemon.commands.common import EnterpriseOption, open_house, print_table, run_work
from daemon.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="API tokens of an enterprise.")


@commands.command("add")
def token_add(enterprise: EnterpriseOption, name: Annotated[str, typer.Option("--name", help="What it is for.")]) -> None:
    """A new token; shown once."""
    from daemon.store.tokens import TokenRepository

    async def work(settings: Settings) -> str:
        async with open_house(settings) as (_, db):
            return (await TokenRepository(db).add(enterprise, name))[1]

    print(run_work(work))


@commands.command("list")
def token_list(enterprise: EnterpriseOption) -> None:
    """Tokens, without their secret."""
    from daemon.store.tokens import TokenRepository

    async def work(settings: Settings) -> list[dict[str, Any]]:
        async with open_house(settings) as (_, db):
            return await TokenRepository(db).list(enterprise)

    print_table(("id", "name", "created", "last used"), [(str(t["id"]), t["name"], t["created_at"], t["last_used_at"] or "never") for t in run_work(work)])


@commands.command("revoke")
def token_revoke(enterprise: EnterpriseOption, token_id: int) -> None:
    """Makes a token useless at once."""
    from daemon.store.tokens import TokenRepository

    async def work(settings: Settings) -> None:
        async with open_house(settings) as (_, db):
            await TokenRepository(db).revoke(enterprise, token_id)

    run_work(work)
    print(f"token {token_id} revoked")
