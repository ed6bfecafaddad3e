"""A customer's number, forgotten."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from daemon.commands.common import EnterpriseOption, open_house, run_work
from daemon.commands.users import acting
from daemon.settings import Settings

commands = typer.Typer()


@commands.command("erase")
def erase(
    phone: str,
    enterprise: EnterpriseOption,
    yes: Annotated[bool, typer.Option("--yes", help="Erase. Without it: only what would go.")] = False,
) -> None:
    """Shows what is stored about a customer's number; with --yes it goes, and nothing brings it back."""
    from daemon.erasure import Erasure
    from daemon.store.audit import AuditLog
    from daemon.store.crm_records import CrmRecordRepository

    async def work(settings: Settings) -> dict[str, Any]:
        async with open_house(settings) as (tenants, db):
            await tenants.load()
            return await Erasure(db, tenants, AuditLog(db), CrmRecordRepository(db)).erase(enterprise, phone, acting(), dry_run=not yes)

    _print(run_work(work))


def _print(report: dict[str, Any]) -> None:
    print("would be erased (--yes does it):" if report["dry_run"] else "erased:")
    for name, count in report["found"].items():
        print(f"  {count:>6}  {name}")
    for one in report["recordings_left"]:
        print(f"delete by hand: {one['name']} of PBX {one['pbx']}: {one['why']}")
    if report["still_live"]:
        print(f"{report['still_live']} calls are not over, or ended in the last minute: repeat it afterwards")
    if report["in_settings"]:
        print("the enterprise's settings have the number too: change them")
    print("what stays:")
    for one in report["stays"]:
        print(f"  {one}")
