"""The outbox and its dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from daemon.commands.common import EnterpriseOption, open_house, print_table, run_work
from daemon.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="The outbox and its dead letters.")


@commands.command("list")
def deliveries_list(
    enterprise: EnterpriseOption,
    state: Annotated[str | None, typer.Option("--state", help="waiting, sending, delivered, dead, discarded, dropped or observed.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 50,
) -> None:
    """Deliveries, newest first."""

    async def work(settings: Settings) -> Any:
        return await _outbox(settings, lambda outbox: outbox.list(enterprise, state=state, limit=limit))

    rows = [(str(d["id"]), d["created_at"], d["integration"], d["kind"], d["state"], str(d["attempts"]), d["last_error"] or "") for d in run_work(work)]
    print_table(("id", "created", "integration", "kind", "state", "tries", "last error"), rows)


@commands.command("retry")
def deliveries_retry(enterprise: EnterpriseOption, delivery: int) -> None:
    """Makes a waiting or dead delivery due now."""
    _change_delivery(lambda outbox: outbox.retry(enterprise, delivery))


@commands.command("discard")
def deliveries_discard(enterprise: EnterpriseOption, delivery: int) -> None:
    """Gives a waiting or dead delivery up for good."""
    _change_delivery(lambda outbox: outbox.discard(enterprise, delivery))


def _change_delivery(change: Callable[[Any], Awaitable[dict[str, Any]]]) -> None:
    async def work(settings: Settings) -> Any:
        return await _outbox(settings, change)

    done = run_work(work)
    print(f"{done['id']}: {done['state']}")


async def _outbox(settings: Settings, use: Callable[[Any], Awaitable[Any]]) -> Any:
    from daemon.delivery.outbox import Outbox

    async with open_house(settings) as (_, db):
        return await use(Outbox(db, "cli"))
