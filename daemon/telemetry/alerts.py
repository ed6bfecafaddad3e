"""Which alarms the operator's webhook is told of, and how it proves that they are ours. Pure."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GRACE_S = 60.0  # a PBX that restarts is no news

Key = tuple[str, str, str]  # enterprise, code, subject

TEXTS = {
    "pbx_down": "no link to PBX {subject} of enterprise {enterprise}: {detail}",
    "pbx_unread": "no vochid reads PBX {subject} of enterprise {enterprise}: its calls are not seen",
    "needs_reauth": "{subject} refuses the credentials of enterprise {enterprise}: {detail}",
    "connection_off": "the connection of enterprise {enterprise} to {subject} is off: {detail}",
    "old_deliveries": "{subject} of enterprise {enterprise} is behind: the oldest delivery has waited for {detail} s",
}
SEVERITIES = {"pbx_down": "error", "pbx_unread": "error", "needs_reauth": "error", "connection_off": "warning", "old_deliveries": "warning"}


@dataclass(slots=True)
class PbxWatch:
    """What is wrong with PBXs for longer than the grace; remembers since when each has been in trouble."""

    _since: dict[Key, float] = field(default_factory=dict)

    def look(self, pbxs: Iterable[Mapping[str, Any]], now: float) -> dict[Key, str]:
        """Trouble of more than GRACE_S with its detail. `pbxs` as the overview gives them; `now` in monotonic seconds."""
        found = {key: detail for pbx in pbxs for key, detail in _trouble(pbx)}
        self._since = {key: self._since.get(key, now) for key in found}
        return {key: detail for key, detail in found.items() if now - self._since[key] >= GRACE_S}


def _trouble(pbx: Mapping[str, Any]) -> list[tuple[Key, str]]:
    if not pbx["reads"]:
        return []
    if pbx["state"] is None or not pbx["is_here"]:
        return [((pbx["enterprise"], "pbx_unread", pbx["pbx"]), "")] if pbx["owner"] is None else []
    return [((pbx["enterprise"], "pbx_down", pbx["pbx"]), pbx["reason"] or pbx["state"])] if pbx["state"] != "ready" else []


def over(opened: Iterable[Key], found: Mapping[Key, str], pbxs: Sequence[Mapping[str, Any]]) -> list[Key]:
    """Those of the open alerts that ended. A link is judged by the node that has it: what another one reads, it ends."""
    rows = {(pbx["enterprise"], pbx["pbx"]): pbx for pbx in pbxs}

    def is_over(key: Key) -> bool:
        enterprise, code, subject = key
        if not code.startswith("pbx_"):
            return key not in found
        pbx = rows.get((enterprise, subject))
        if pbx is None or not pbx["reads"]:
            return True
        return (pbx["state"] == "ready" and pbx["is_here"]) or (code == "pbx_unread" and pbx["owner"] is not None)

    return [key for key in opened if is_over(key)]


def webhook_body(row: Mapping[str, Any], node: str) -> bytes:
    """What is posted: `type` alarm.began or alarm.ended, and the alarm with a sentence for people."""
    has_ended = row["told"] == "began"
    text = TEXTS[row["code"]].format(enterprise=row["enterprise_number"], subject=row["subject"], detail=row["detail"])
    data = {
        "code": row["code"], "severity": row["severity"], "enterprise": row["enterprise_number"], "subject": row["subject"], "detail": row["detail"],
        "began_at": row["began_at"].isoformat(), "ended_at": row["ended_at"].isoformat() if has_ended else None, "node": node,
        "text": f"over: {text}" if has_ended else text,
    }  # fmt: skip
    return json.dumps({"type": "alarm.ended" if has_ended else "alarm.began", "data": data}, ensure_ascii=False).encode()


def signed(keys: Sequence[bytes], message_id: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks 1.0 (HMAC-SHA256 over `id.timestamp.body`), one signature per key, newest first."""
    content = f"{message_id}.{at}.".encode() + body
    signatures = " ".join("v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys)
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signatures}


def shown_secret(key: bytes) -> str:
    """The key as receivers configure it."""
    return "whsec_" + base64.b64encode(key).decode()
