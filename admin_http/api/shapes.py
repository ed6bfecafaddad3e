"""What answers look like, as JSON schemas for the description. What they mean stands in docs/api.md and docs/calls.md."""

from __future__ import annotations

from typing import Any

from daemon.model.call import Direction, Result

_TEXT, _TEXT_OR_NULL, _TIME_OR_NULL = {"type": "string"}, {"type": ["string", "null"]}, {"type": ["string", "null"], "format": "date-time"}
_FLAG, _SECONDS, _TEXTS, _OBJECTS = (
    {"type": "boolean"},
    {"type": "number", "minimum": 0},
    {"type": "array", "items": _TEXT},
    {"type": "array", "items": {"type": "object"}},
)

_CALL: dict[str, Any] = {
    "id": {"type": "string", "format": "uuid"}, "enterprise": _TEXT, "pbx": _TEXT, "linkedid": _TEXT, "direction": {"enum": [str(one) for one in Direction]},
    "customer_number": _TEXT_OR_NULL, "customer_name": _TEXT_OR_NULL, "line": _TEXT_OR_NULL, "started_at": {"type": "string", "format": "date-time"},
    "answered_at": _TIME_OR_NULL, "ended_at": _TIME_OR_NULL, "wait_seconds": _SECONDS, "talk_seconds": _SECONDS,
    "result": {"enum": [*(str(one) for one in Result), None]}, "missed": _FLAG, "rang": _TEXTS, "answered_by": _TEXT_OR_NULL, "last_talked": _TEXT_OR_NULL,
    "initiator": _TEXT_OR_NULL, "transfers": _OBJECTS, "queue": _TEXT_OR_NULL, "click_to_call": _FLAG, "consult": _FLAG, "recordings": _TEXTS, "gap": _FLAG,
    "legs": _OBJECTS,
}  # fmt: skip
CALL: dict[str, Any] = {"type": "object", "required": list(_CALL), "properties": _CALL}


def list_of(item: dict[str, Any]) -> dict[str, Any]:
    """A list: items, and where the next page begins."""
    return {"type": "object", "required": ["items", "next"], "properties": {"items": {"type": "array", "items": item}, "next": _TEXT_OR_NULL}}


LIST = list_of({"type": "object"})
PLACED: dict[str, Any] = {
    "type": "object", "required": ["success", "request_id", "state"], "properties": {"success": _FLAG, "request_id": _TEXT, "state": _TEXT},
}  # fmt: skip
DONE: dict[str, Any] = {"type": "object", "required": ["ok", "detail"], "properties": {"ok": _FLAG, "detail": _TEXT}}
TESTED: dict[str, Any] = {
    "type": "object", "required": ["ok", "checks"],
    "properties": {"ok": _FLAG, "checks": {"type": "array", "items": {
        "type": "object", "required": ["name", "ok", "detail", "field"], "properties": {"name": _TEXT, "ok": _FLAG, "detail": _TEXT, "field": _TEXT_OR_NULL},
    }}},
}  # fmt: skip
