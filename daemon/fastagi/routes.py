"""What the dialplan can ask, and the variables it is answered with (docs/smart-redirect.md)."""

from __future__ import annotations

from daemon.fastagi.server import Route, Variables
from daemon.fastagi.wire import Request
from daemon.lookup.decision import Decision
from daemon.lookup.service import Lookup, Question


def make_routes(lookup: Lookup) -> dict[str, Route]:
    """smart-redirect: who the call should go to; caller-name: only how the caller is called."""

    async def smart_redirect(request: Request) -> Variables:
        return variables(await lookup.ask(_question(request)))

    async def caller_name(request: Request) -> Variables:
        decision = await lookup.ask(_question(request, name_only=True))
        return {"VOCHI_CALLER_NAME": decision.name}

    return {"smart-redirect": smart_redirect, "caller-name": caller_name}


def variables(decision: Decision) -> Variables:
    """VOCHI_STATUS comes last: the dialplan trusts the others only when it is there."""
    return {"VOCHI_REDIRECT": decision.extension or "", "VOCHI_CALLER_NAME": decision.name, "VOCHI_STATUS": str(decision.status)}


def _question(request: Request, *, name_only: bool = False) -> Question:
    return Question(request.enterprise, request.phone, request.channel, request.uniqueid, "fastagi", name_only=name_only, line=request.line)
