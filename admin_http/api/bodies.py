"""Bodies of requests that programs send as JSON and pages as forms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from admin_http.api.routing import parse_json
from daemon.errors import VochidError

MAX_FIELDS = 20_000


async def read_object(request: web.Request, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The body as an object: JSON, or a form whose fields may be `name`, `name[key]`, or JSON in text. Raises VochidError (bad_body) that says
    what was expected when it is empty, broken or something else."""
    if request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        found = await _form(request)
    else:
        data = await request.read()
        found = parse_json(data) if data.strip() else {}
        if not isinstance(found, dict):
            raise VochidError("the body must be a JSON object", code="bad_body")
    if not found and not may_be_empty:
        raise VochidError("the body is empty: send a JSON object or a form", code="bad_body")
    return found


async def _form(request: web.Request) -> dict[str, Any]:
    try:
        fields = await request.post()
    except (ValueError, AssertionError, RuntimeError) as error:
        raise VochidError(f"the form cannot be read: {str(error)[:150]}", code="bad_body") from None
    if len(fields) > MAX_FIELDS:
        raise VochidError(f"a form has at most {MAX_FIELDS} fields", code="bad_body")
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise VochidError(f"field {name[:80]} is a file: send text", code="bad_body")
        key, bracket, rest = name.partition("[")
        if not bracket:
            found[name] = value
        elif rest.endswith("]") and "[" not in rest:
            inner = found.setdefault(key, {})
            if not isinstance(inner, dict):
                raise VochidError(f"field {key[:80]} is given twice", code="bad_body")
            inner[rest[:-1]] = value
        else:
            raise VochidError(f"field {name[:80]} cannot be understood", code="bad_body")
    return found


def object_field(body: Mapping[str, Any], name: str) -> Any:
    """A field that is an object, or JSON text of one (as forms carry it). Raises VochidError (bad_body) when it is missing."""
    if name not in body:
        raise VochidError(f"the body has no {name}", code="bad_body", field=name)
    value = body[name]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise VochidError(f"{name} is not JSON", code="bad_body", field=name) from None
    return value
