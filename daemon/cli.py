"""The command `vochid`. Errors are one line saying what is wrong and what to do, exit status 1; wrong usage 2."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import asyncpg
import typer

from daemon.commands import backups, calls, deliveries, enterprises, erase, imports, keys, process, tokens, users
from daemon.errors import VochidError
from daemon.settings import load_settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="vochid joins Asterisk to CRMs.")
cli.add_typer(process.commands)
cli.add_typer(imports.commands)
cli.add_typer(erase.commands)
cli.add_typer(backups.commands)
for name, group in {
    "enterprise": enterprises.commands, "token": tokens.commands, "calls": calls.commands, "trace": calls.traces, "deliveries": deliveries.commands,
    "user": users.commands, "keys": keys.commands,
}.items():  # fmt: skip
    cli.add_typer(group, name=name)


@cli.callback(invoke_without_command=True)
def _about(show: Annotated[bool, typer.Option("--version", help="Prints the version.", is_eager=True)] = False) -> None:
    if show:
        print(f"vochid {version('vochid')}")
        raise typer.Exit


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
