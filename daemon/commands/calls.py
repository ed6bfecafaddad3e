"""Calls and raw AMI streams."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.progress import Progress

from daemon.commands.common import EnterpriseOption, open_house, print_json, print_table, read_documents, run_work
from daemon.errors import NotFound, SettingsError
from daemon.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="Calls: replay a trace, watch live ones.")
traces = typer.Typer(no_args_is_help=True, help="Raw AMI streams.")


@commands.command("replay")
def calls_replay(
    trace: Annotated[Path, typer.Argument(help="*.ami (with an optional *.ami.json beside it), *.json or *.jsonl.")],
    settings: Annotated[Path, typer.Option("--settings", help="An enterprise document.")],
    pbx: Annotated[str | None, typer.Option("--pbx", help="Which of its PBXs; the first by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines by started_at.")] = False,
) -> None:
    """Runs a recorded AMI trace through the call model; needs no database."""
    from daemon.calls.replay import TraceError, read_trace, replay

    view = _view(settings, pbx)
    sidecar = trace.with_name(trace.name + ".json")
    try:
        calls = replay(read_trace(trace.name, trace.read_bytes(), sidecar.read_bytes() if sidecar.is_file() else None), view)
    except TraceError as error:
        raise SettingsError(f"{trace}: {error}") from None
    if as_json:
        for call in calls:
            print(json.dumps(call.to_json(), ensure_ascii=False))
    else:
        _calls_table([call.to_json() for call in calls])


def _view(file: Path, pbx: str | None) -> Any:
    from pydantic import ValidationError

    from daemon.tenants.document import Enterprise

    document = read_documents(file)[0]
    if not isinstance(document, dict):
        raise SettingsError(f"{file} is not an enterprise document")
    try:
        enterprise = Enterprise.model_validate({**document, "integrations": {}})
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{file}: {first['msg']}", field=".".join(map(str, first["loc"]))) from None
    found = [one for one in enterprise.pbxs if pbx in (None, one.name)]
    if not found:
        raise SettingsError(f"{file} has no PBX{' called ' + pbx if pbx else ''}", field="pbxs")
    return enterprise.view(found[0])


@commands.command("tail")
def calls_tail(enterprise: Annotated[str | None, typer.Option("--enterprise", help="Only this one.")] = None) -> None:
    """Calls as they change, until interrupted."""

    async def work(settings: Settings) -> None:
        from daemon.store.tail import follow
        from daemon.wiring.resources import open_database

        async with open_database(settings, own=False, apply=False) as db:
            async for call in follow(db, enterprise, lambda: print("waiting for calls, Ctrl+C ends it", file=sys.stderr, flush=True)):
                state = call["result"] or ("talking" if call["answered_at"] else "ringing" if call["rang"] else "started")
                who = call["last_talked"] or ", ".join(call["rang"]) or call["initiator"] or ""
                print(
                    f"{call['started_at']}  {call['enterprise']}  {call['direction']:8}  {call['customer_number'] or 'withheld':16}  {state:11}  {who}",
                    flush=True,
                )

    run_work(work)


@commands.command("explain")
def calls_explain(
    call: Annotated[str, typer.Argument(help="The call's id.")],
    enterprise: Annotated[str | None, typer.Option("--enterprise", help="Whose call; found by itself when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole story as JSON.")] = False,
    ami: Annotated[Path | None, typer.Option("--ami", help="Write the raw events there, as a TRACE for `calls replay`.")] = None,
) -> None:
    """Raw events, model transitions, deliveries and CRM answers in time order, and why something was not sent."""

    async def work(settings: Settings) -> tuple[dict[str, Any], bytes | None]:
        from daemon.explain import Explain

        async with open_house(settings) as (tenants, db):
            await tenants.load()
            explain = Explain(db, tenants)
            for number in [enterprise] if enterprise else list(tenants.all()):
                try:
                    story = await explain.story(number, call)
                except NotFound:
                    continue
                return story, await explain.trace(number, call) if ami else None
            raise NotFound(f"there is no call {call}")

    story, raw = run_work(work)
    if ami is not None and raw is not None:
        ami.write_bytes(raw)
        print(f"{len(raw)} bytes", file=sys.stderr)
    if as_json:
        print_json(story)
        return
    _calls_table([story["call"]])
    print()
    for item in story["items"]:
        detail = item["detail"] if item["kind"] != "delivery" else {"attempts": item["detail"]["attempts"], "error": item["detail"]["last_error"]}
        print(f"{item['at']}  {item['kind']:8}  {item['what']}  {json.dumps(detail, ensure_ascii=False)[:300]}")
    for note in story["notes"]:
        print(f"note: {note}")


@commands.command("backfill")
def calls_backfill(
    enterprise: EnterpriseOption,
    since: Annotated[str, typer.Option("--from", help="ISO 8601; without an offset in the enterprise's zone.")],
    until: Annotated[str, typer.Option("--to", help="ISO 8601; at most 31 days later.")],
    pbx: Annotated[str | None, typer.Option("--pbx", help="Only this one.")] = None,
) -> None:
    """Completes missing calls from CDR; no popups."""

    async def work(settings: Settings) -> Any:
        from daemon.wiring.afterwards import open_backfill

        async with open_backfill(settings) as (tenants, backfill):
            tenancy = tenants.get(enterprise)
            if tenancy is None:
                raise NotFound(f"there is no enterprise {enterprise}")
            begin, end = (_moment(text, tenancy.enterprise.timezone, name) for text, name in ((since, "from"), (until, "to")))
            with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
                task = bar.add_task("reading CDR", total=None)
                return await backfill.window(enterprise, begin, end, pbx=pbx, progress=lambda done, of: bar.update(task, completed=done, total=of))

    done = run_work(work)
    print(f"{done.rows} rows, {done.calls} calls, {done.stored} stored or completed")


def _moment(text: str, zone: str, name: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"--{name} is a time like 2026-11-21T08:00 or 2026-11-21T08:00:00+03:00", field=name) from None
    return at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))


def _calls_table(calls: list[dict[str, Any]]) -> None:
    rows = [
        (c["started_at"], c["direction"], c["customer_number"] or "withheld", c["line"] or "", c["result"] or "lives", ", ".join(c["rang"]),
         c["answered_by"] or "", f"{c['wait_seconds']:.1f}", f"{c['talk_seconds']:.1f}")
        for c in calls
    ]  # fmt: skip
    print_table(("started", "direction", "customer", "line", "result", "rang", "answered by", "waited, s", "talked, s"), rows)


@traces.command("record")
def trace_record(
    enterprise: EnterpriseOption,
    file: Annotated[Path, typer.Argument(help="Where to; a sidecar with times is written beside it.")],
    pbx: Annotated[str | None, typer.Option("--pbx", help="Which of its PBXs; the first by default.")] = None,
    mask: Annotated[bool, typer.Option("--mask", help="Change outside numbers and names, the same one always in the same way.")] = False,
    seconds: Annotated[float | None, typer.Option("--seconds", help="Stop after this long; by default when interrupted.")] = None,
) -> None:
    """Records the raw AMI stream of a PBX over a connection of its own."""

    async def work(settings: Settings) -> int:
        from daemon.tape import record

        async with open_house(settings) as (tenants, _):
            await tenants.load()
            tenancy = tenants.get(enterprise)
            if tenancy is None:
                raise NotFound(f"there is no enterprise {enterprise}")
            found = [one for one in tenancy.enterprise.pbxs if pbx in (None, one.name)]
            if not found or found[0].secret is None:
                raise SettingsError(f"enterprise {enterprise} has no such PBX with a secret", field="pbxs")
            print(f"recording {found[0].name} into {file}, stop with Ctrl-C", file=sys.stderr)
            return await record(found[0], file, mask=mask, seconds=seconds)

    print(f"{run_work(work)} bytes", file=sys.stderr)
