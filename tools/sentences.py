"""The forms of the sentences that checks and errors are made by, read from the source: admin_http/sentences.py says them in another language.

A literal counts where it is given to an error, a check or an outcome, is returned, or is kept under a name, and reads like a sentence. What only
commands, the API or the log ever show is left out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAYING = frozenset((
    "VochidError", "LoginRefused", "NotFound", "SettingsError", "Forbidden", "Unauthorized", "BadRequest", "DialRefused", "OverLimit", "NoLink", "PbxRefused",
    "PreconditionFailed", "CrmFailed", "NotConnected", "ValueError", "Check", "Retry", "AuthExpired", "Rejected", "Throttled", "Ambiguous", "LookupFailed",
    "Registered", "Progress", "Broken", "Verdict", "Choice", "Decision", "_break", "_violation",
))  # fmt: skip
UNSEEN_FILES = (
    "daemon/commands/", "daemon/asterisk/", "daemon/settings.py", "daemon/fastagi/", "daemon/calls/", "daemon/cdr/", "daemon/store/embedded.py",
    "daemon/store/migrate.py", "daemon/tenants/predecessor", "daemon/tape.py", "daemon/app.py", "daemon/explain.py", "daemon/security/vault.py",
    "daemon/recordings/", "daemon/ami/wire.py", "daemon/ami/actions.py", "daemon/delivery/letters.py", "admin_http/api/", "admin_http/webhooks.py",
)  # fmt: skip
ONLY_GIVEN = ("daemon/store/", "daemon/delivery/outbox.py", "admin_http/app.py", "admin_http/pages/static.py")  # what these keep or return is SQL and headers
UNSEEN_FUNCTIONS = frozenset(("examine", "_check_database", "check_fastagi", "_check_pooler", "_check_tenants"))  # the command `doctor`
_NOT_A_FIELD = ("code", "field")
_WORDS = re.compile(r"[A-Za-z']{2,}")
_SQL = re.compile(r"\$\d|= now\(\)|^\s*(?:select|insert|update|delete|with)\b", re.IGNORECASE)


def sentences() -> Iterator[tuple[str, str]]:
    """Every form with the file that has it, values as %(1)s, %(2)s, …; the same form may come again."""
    for room in ("daemon", "adapters", "admin_http"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(UNSEEN_FILES):
                for form in _in_tree(ast.parse(path.read_text("utf-8")), not name.startswith(ONLY_GIVEN)):
                    yield form, name


def _in_tree(tree: ast.AST, kept_too: bool) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in UNSEEN_FUNCTIONS:
            continue
        match node:
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)) if called in SAYING:
                said = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg not in _NOT_A_FIELD)]
                yield from (form for value in said for form in _forms(value) if _reads_well(form, 2))
            case ast.Return(value=ast.expr() as value) | ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value) if kept_too:
                yield from (form for form in _forms(value) if _reads_well(form, 3))
        yield from _in_tree(node, kept_too)


def _forms(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=values):
            holes = iter(range(1, 10))
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else f"%({next(holes)})s" for part in values)
        case ast.IfExp(body=one, orelse=other):
            yield from (*_forms(one), *_forms(other))
        case ast.BoolOp(values=values) | ast.Tuple(elts=values) | ast.List(elts=values):
            for value in values:
                yield from _forms(value)


def _reads_well(form: str, least_words: int) -> bool:
    """Whether it is made of words: a code, an address and a statement are not."""
    text = re.sub(r"%\(\d\)s", " ", form)
    return " " in form.strip() and len(_WORDS.findall(text)) >= least_words and not _SQL.search(form)
