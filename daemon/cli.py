"""The command `vochid`. Errors are one line saying what is wrong and what to do, exit status 1; wrong usage 2."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import asyncpg
import typer
from rich.console import Console
from rich.table import Table

from daemon.errors import NotFound, SettingsError, VochidError
from daemon.settings import Settings, load_settings
from daemon.telemetry.logs import configure

T = TypeVar("T")

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="vochid joins Asterisk to CRMs.")
enterprise_cli = typer.Typer(no_args_is_help=True, help="Tenants as documents.")
token_cli = typer.Typer(no_args_is_help=True, help="API tokens of an enterprise.")
calls_cli = typer.Typer(no_args_is_help=True, help="Calls: replay a trace, watch live ones.")
trace_cli = typer.Typer(no_args_is_help=True, help="Raw AMI streams.")
deliveries_cli = typer.Typer(no_args_is_help=True, help="The outbox and its dead letters.")
for name, group in {
    "enterprise": enterprise_cli, "token": token_cli, "calls": calls_cli, "trace": trace_cli, "deliveries": deliveries_cli,
}.items():  # fmt: skip
    cli.add_typer(group, name=name)

EnterpriseOption = Annotated[str, typer.Option("--enterprise", help="The enterprise's number.")]


def main() -> None:
    """Runs the command line; no traceback reaches a user."""
    try:
        cli()
    except VochidError as error:
        field = f"{error.field}: " if error.field and not str(error).startswith(error.field) else ""
        _fail(f"{field}{error}")
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _fail(f"the database says: {error}")
    except OSError as error:
        _fail(f"{str(error.filename) + ': ' if error.filename else ''}{error.strerror or error or type(error).__name__}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        import traceback

        if load_settings().log_level == "debug":
            traceback.print_exc()
        _fail(f"unexpected {type(error).__name__}: {error} (VOCHID_LOG_LEVEL=debug shows where)")


def _fail(message: str) -> None:
    print(f"vochid: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


def _run(work: Callable[[Settings], Awaitable[T]], *, quiet: bool = True) -> T:
    from daemon.lifecycle import run_async

    settings = load_settings()
    configure("error" if quiet else settings.log_level, settings.log_format)

    async def go() -> T:
        return await work(settings)

    return run_async(go())


@asynccontextmanager
async def _tenants(settings: Settings) -> AsyncIterator[Any]:
    """The tenants' service on the settings' database, for one command."""
    from daemon.app import open_database, open_tenants, open_vault

    async with open_database(settings, own=False, apply=True) as db:
        tenants = open_tenants(settings, db, open_vault(settings))
        yield tenants, db


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


# -- the daemon --------------------------------------------------------------------------------------------------------------


@cli.command()
def run() -> None:
    """The daemon; with the embedded PostgreSQL unless VOCHID_DATABASE_URL is set."""
    from daemon.lifecycle import serve

    _run(serve, quiet=False)


@cli.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop when the calls are told (default when output is no terminal).")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Recorded calls on a fake PBX, as without root.")] = False,
) -> None:
    """A lab PBX, a CRM sandbox, the daemon, and live calls between them."""
    from daemon.lifecycle import run_async
    from lab.demo import play_demo

    configure("error", None)
    run_async(play_demo(once=once or not sys.stdout.isatty(), force_replay=replay))


@cli.command()
def migrate() -> None:
    """Applies sql/ to the database."""
    from daemon.app import open_database
    from daemon.store.migrate import migrate as apply

    async def work(settings: Settings) -> int:
        async with open_database(settings, own=False, apply=False) as db:
            return await apply(db.url, progress=lambda text: print(f"applying {text}", file=sys.stderr))

    done = _run(work)
    print(f"{done} migrations applied" if done else "the schema is up to date")


@cli.command()
def doctor(
    enterprise: Annotated[str | None, typer.Option("--enterprise", help="Only this one.")] = None,
    asterisk_conf: Annotated[Path | None, typer.Option("--asterisk-conf", help="The PBX's configuration directory, to be read too.")] = None,
) -> None:
    """Checks database, keys, PBXs and CRMs; a line each, exit 1 on a failure."""
    from daemon.doctor import examine

    failed = 0

    async def work(settings: Settings) -> None:
        nonlocal failed
        async for check in examine(settings, enterprise, asterisk_conf):
            failed += not check.ok
            print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}{': ' + check.detail if check.detail else ''}", flush=True)

    _run(work)
    if failed:
        raise typer.Exit(1)


# -- enterprises ---------------------------------------------------------------------------------------------------------------


@enterprise_cli.command("list")
def enterprise_list() -> None:
    """All enterprises."""

    async def work(settings: Settings) -> list[tuple[str, ...]]:
        async with _tenants(settings) as (tenants, _):
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

    _table(("number", "name", "state", "pbxs", "integrations"), _run(work))


@enterprise_cli.command("show")
def enterprise_show(number: str, sealed: Annotated[bool, typer.Option("--sealed", help="With secrets, sealed with this instance's key.")] = False) -> None:
    """One enterprise's document."""

    async def work(settings: Settings) -> dict[str, Any]:
        async with _tenants(settings) as (tenants, _):
            document, _ = await tenants.document(number, sealed=sealed)
            return dict(document)

    _print_json(_run(work))


@enterprise_cli.command("apply")
def enterprise_apply(file: Annotated[Path, typer.Argument(help="A document, or a list of them; - reads standard input.")]) -> None:
    """Creates or changes enterprises; doing it twice changes nothing."""
    documents = _read_documents(file)

    async def work(settings: Settings) -> list[str]:
        async with _tenants(settings) as (tenants, _):
            lines = []
            for document in documents:
                number = document.get("number") if isinstance(document, dict) else None
                if not isinstance(number, str):
                    raise SettingsError("every document needs a number, as text", field="number")
                before = (await tenants.document(number))[1] if await _exists(tenants, number) else None
                _, etag, created = await tenants.put(number, document)
                lines.append(f"{number}: {'created' if created else 'unchanged' if etag == before else 'changed'}")
            return lines

    print("\n".join(_run(work)))


async def _exists(tenants: Any, number: str) -> bool:
    try:
        await tenants.document(number)
    except NotFound:
        return False
    return True


def _read_documents(file: Path) -> list[Any]:
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    try:
        loaded = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{file} is not JSON: {error}") from None
    return loaded if isinstance(loaded, list) else [loaded]


@enterprise_cli.command("pause")
def enterprise_pause(number: str) -> None:
    """Stops reading its PBXs and telling its CRMs; nothing stored is lost."""
    _set_paused(number, True)


@enterprise_cli.command("resume")
def enterprise_resume(number: str) -> None:
    """The opposite of pause."""
    _set_paused(number, False)


def _set_paused(number: str, paused: bool) -> None:
    async def work(settings: Settings) -> None:
        async with _tenants(settings) as (tenants, _):
            await tenants.set_paused(number, paused)

    _run(work)
    print(f"{number}: {'paused' if paused else 'resumed'}")


@enterprise_cli.command("remove")
def enterprise_remove(number: str, purge: Annotated[bool, typer.Option("--purge", help="Its calls and deliveries too.")] = False) -> None:
    """Removes an enterprise; its calls stay until retention unless --purge."""

    async def work(settings: Settings) -> None:
        async with _tenants(settings) as (tenants, _):
            await tenants.remove(number, purge=purge)

    _run(work)
    print(f"{number}: removed{', with everything stored of it' if purge else ''}")


# -- tokens --------------------------------------------------------------------------------------------------------------------


@token_cli.command("add")
def token_add(enterprise: EnterpriseOption, name: Annotated[str, typer.Option("--name", help="What it is for.")]) -> None:
    """A new token; shown once."""
    from daemon.store.tokens import TokenRepository

    async def work(settings: Settings) -> str:
        async with _tenants(settings) as (_, db):
            return (await TokenRepository(db).add(enterprise, name))[1]

    print(_run(work))


@token_cli.command("list")
def token_list(enterprise: EnterpriseOption) -> None:
    """Tokens, without their secret."""
    from daemon.store.tokens import TokenRepository

    async def work(settings: Settings) -> list[dict[str, Any]]:
        async with _tenants(settings) as (_, db):
            return await TokenRepository(db).list(enterprise)

    _table(("id", "name", "created", "last used"), [(str(t["id"]), t["name"], t["created_at"], t["last_used_at"] or "never") for t in _run(work)])


@token_cli.command("revoke")
def token_revoke(enterprise: EnterpriseOption, token_id: int) -> None:
    """Makes a token useless at once."""
    from daemon.store.tokens import TokenRepository

    async def work(settings: Settings) -> None:
        async with _tenants(settings) as (_, db):
            await TokenRepository(db).revoke(enterprise, token_id)

    _run(work)
    print(f"token {token_id} revoked")


# -- calls -----------------------------------------------------------------------------------------------------------------------


@calls_cli.command("replay")
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

    document = _read_documents(file)[0]
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


@calls_cli.command("tail")
def calls_tail(enterprise: Annotated[str | None, typer.Option("--enterprise", help="Only this one.")] = None) -> None:
    """Calls as they change, until interrupted."""

    async def work(settings: Settings) -> None:
        from daemon.app import open_database
        from daemon.store.tail import follow

        async with open_database(settings, own=False, apply=False) as db:
            async for call in follow(db, enterprise):
                state = call["result"] or ("talking" if call["answered_at"] else "ringing" if call["rang"] else "started")
                who = call["last_talked"] or ", ".join(call["rang"]) or call["initiator"] or ""
                print(
                    f"{call['started_at']}  {call['enterprise']}  {call['direction']:8}  {call['customer_number'] or 'withheld':16}  {state:11}  {who}",
                    flush=True,
                )

    _run(work)


def _calls_table(calls: list[dict[str, Any]]) -> None:
    rows = [
        (c["started_at"], c["direction"], c["customer_number"] or "withheld", c["line"] or "", c["result"] or "lives", ", ".join(c["rang"]),
         c["answered_by"] or "", f"{c['wait_seconds']:.1f}", f"{c['talk_seconds']:.1f}")
        for c in calls
    ]  # fmt: skip
    _table(("started", "direction", "customer", "line", "result", "rang", "answered by", "waited, s", "talked, s"), rows)


@trace_cli.command("record")
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

        async with _tenants(settings) as (tenants, _):
            await tenants.load()
            tenancy = tenants.get(enterprise)
            if tenancy is None:
                raise NotFound(f"there is no enterprise {enterprise}")
            found = [one for one in tenancy.enterprise.pbxs if pbx in (None, one.name)]
            if not found or found[0].secret is None:
                raise SettingsError(f"enterprise {enterprise} has no such PBX with a secret", field="pbxs")
            print(f"recording {found[0].name} into {file}, stop with Ctrl-C", file=sys.stderr)
            return await record(found[0], file, mask=mask, seconds=seconds)

    print(f"{_run(work)} bytes", file=sys.stderr)


# -- deliveries -------------------------------------------------------------------------------------------------------------------


@deliveries_cli.command("list")
def deliveries_list(
    enterprise: EnterpriseOption,
    state: Annotated[str | None, typer.Option("--state", help="waiting, sending, delivered, dead, discarded, dropped or observed.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 50,
) -> None:
    """Deliveries, newest first."""

    async def work(settings: Settings) -> Any:
        return await _outbox(settings, lambda outbox: outbox.list(enterprise, state=state, limit=limit))

    rows = [(str(d["id"]), d["created_at"], d["integration"], d["kind"], d["state"], str(d["attempts"]), d["last_error"] or "") for d in _run(work)]
    _table(("id", "created", "integration", "kind", "state", "tries", "last error"), rows)


@deliveries_cli.command("retry")
def deliveries_retry(enterprise: EnterpriseOption, delivery: int) -> None:
    """Makes a waiting or dead delivery due now."""
    _change_delivery(lambda outbox: outbox.retry(enterprise, delivery))


@deliveries_cli.command("discard")
def deliveries_discard(enterprise: EnterpriseOption, delivery: int) -> None:
    """Gives a waiting or dead delivery up for good."""
    _change_delivery(lambda outbox: outbox.discard(enterprise, delivery))


def _change_delivery(change: Callable[[Any], Awaitable[dict[str, Any]]]) -> None:
    async def work(settings: Settings) -> Any:
        return await _outbox(settings, change)

    done = _run(work)
    print(f"{done['id']}: {done['state']}")


async def _outbox(settings: Settings, use: Callable[[Any], Awaitable[Any]]) -> Any:
    from daemon.delivery.outbox import Outbox

    async with _tenants(settings) as (_, db):
        return await use(Outbox(db, "cli"))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table for people; tab-separated lines in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    table = Table(*head, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
