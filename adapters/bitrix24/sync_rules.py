"""Whose value stands: the rules of a two-way sync (docs/adapters/bitrix24-sync.md). Pure.

What both sides had when they were last equal is `agreed`. A side that still has it did not change the field; where both changed it, the later change
stands, and the conflict is noted. So an echo of our own change changes nothing: it shows what was agreed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.bitrix24.sync_fields import View
from daemon.model.delivery import Ambiguous, AuthExpired, Outcome, Rejected, Retry, Throttled

MAX_KEPT = 10  # digests and conflicts that a mapping remembers
_DENIED = ("access denied", "access_denied", "insufficient_scope", "доступ запрещен")


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of a pair. `agreed`: the view that both had; `shown`: what the portal shows for a field that we told it is empty (it fills in
    dates by itself); `written`: digests of the states that it showed before and after our own writes; `changed_at`: its DATE_MODIFY then, Unix seconds."""

    agreed: View = field(default_factory=dict)
    shown: View = field(default_factory=dict)
    written: Sequence[str] = ()
    changed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """`apply`: values for our record; `write`: fields for the portal; `agreed`: where both are equal, or will be; `conflicts`: {"field", "local", "remote",
    "won"} of fields that both sides had changed."""

    apply: dict[str, Any]
    write: tuple[str, ...]
    agreed: dict[str, Any]
    conflicts: tuple[dict[str, Any], ...] = ()


def merge(local: View, remote: View, agreed: View, changed: Mapping[str, float], remote_at: float | None, out_only: frozenset[str] = frozenset()) -> Merged:
    """Field by field. `changed`: when ours was changed; `remote_at`: when the entity was, as a whole (the portal knows no more). Where both changed, the
    portal's stands when it is strictly later, ours otherwise. What was never agreed on and is empty, or not known, on one side is filled from the other."""
    apply: dict[str, Any] = {}
    write: list[str] = []
    same: dict[str, Any] = {}
    conflicts: list[dict[str, Any]] = []
    for name in local:
        ours = local[name]
        if name in out_only:
            if agreed.get(name) != ours:
                write.append(name)
            same[name] = ours
            continue
        if name not in remote:
            if agreed.get(name) != ours:
                write.append(name)
                same[name] = ours
            continue
        theirs = remote[name]
        if ours != theirs:
            is_ours, conflict = _stands(name, ours, theirs, agreed, changed.get(name, 0.0), remote_at)
            if conflict:
                conflicts.append({"field": name, "local": ours, "remote": theirs, "won": "local" if is_ours else "bitrix24"})
            if is_ours:
                write.append(name)
            else:
                apply[name] = theirs
        same[name] = apply.get(name, ours)
    return Merged(apply, tuple(write), {**agreed, **same}, tuple(conflicts))


def _stands(name: str, ours: Any, theirs: Any, agreed: View, ours_at: float, theirs_at: float | None) -> tuple[bool, bool]:
    """Whether ours stands, and whether that was a conflict."""
    if name in agreed:
        if theirs == agreed[name]:
            return True, False
        if ours == agreed[name]:
            return False, False
    elif ours is None or theirs is None:
        return theirs is None, False
    return theirs_at is None or theirs_at <= ours_at, True


def digest(view: View) -> str:
    """Names a state of an entity."""
    return hashlib.sha256(json.dumps(dict(view), sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()[:24]


def is_stale(view: View, at: float | None, known: Known) -> bool:
    """Whether this is a state from before what we know already: read late, or from a copy that lags. Within the same second, which is all that DATE_MODIFY
    tells, a state that was there before or after one of our writes is told late, or is the echo of it."""
    if at is None or known.changed_at is None or at > known.changed_at:
        return False
    return at < known.changed_at or digest(view) in known.written


def remembered(written: Sequence[str], view: View) -> tuple[str, ...]:
    """`written` with one more state, the oldest forgotten."""
    new = digest(view)
    return (*[one for one in written if one != new], new)[-MAX_KEPT:]


def error_type(outcome: Outcome) -> str | None:
    """auth, network, validation or limit; None for what is no failure."""
    match outcome:
        case AuthExpired():
            return "auth"
        case Throttled():
            return "limit"
        case Retry() | Ambiguous():
            return "network"
        case Rejected(reason):
            return "auth" if is_denied(reason) else "validation"
    return None


def is_denied(reason: str) -> bool:
    """Whether a right is missing for just this."""
    return any(words in reason.lower() for words in _DENIED)
