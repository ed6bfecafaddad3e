"""The API's description, made from the route table itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from admin_http.api.routing import Route


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """An OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation: dict[str, Any] = {"summary": route.says, "parameters": _parameters(route), "responses": _responses(route)}
        if route.body is not None:
            operation["requestBody"] = {"content": {"application/json": {"schema": route.body}}}
        for path in route.paths:
            paths.setdefault(path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "vochid", "version": "1", "description": "Calls, enterprises and deliveries of a vochid daemon."},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Problem": {
                    "type": "object",
                    "required": ["code", "detail"],
                    "properties": {name: {"type": "string"} for name in ("code", "detail", "field")},
                }
            },
        },
    }


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in re.findall(r"{(\w+)}", route.path)]
    in_query = [{"name": name, "in": "query", "description": text, "schema": {"type": "string"}} for name, text in route.query]
    return in_path + in_query


def _responses(route: Route) -> dict[str, Any]:
    problem = {"description": "problem", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    good = {"description": "done", "content": {route.media: {"schema": route.gives}}}
    statuses = route.statuses or ((204,) if route.method == "DELETE" else (200,))
    return {"default": problem, **{str(status): {"description": "done"} if status == 204 else good for status in statuses}}
