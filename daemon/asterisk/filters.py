"""What a manager user's eventfilter lines let through. Pure; a model of main/manager.c for the filters that vochid ships and their like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_ADVANCED = re.compile(r"(action|name|header|method)\(([^)]*)\)")
_METHODS = ("regex", "exact", "starts_with", "ends_with", "contains", "none")


def lets_through(filters: Sequence[tuple[str, str]], event: str, headers: Mapping[str, str]) -> bool:
    """Whether an event passes. `filters`: the user's items whose name begins with `eventfilter`, as they stand.

    With includes, one must match; with excludes, none may; without any line everything passes.
    """
    payload = f"Event: {event}\r\nPrivilege: call,all\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    includes = excludes = passed = False
    for name, value in filters:
        is_exclude, matches = _judge(name, value, event, headers, payload)
        if is_exclude:
            excludes = excludes or matches
        else:
            includes = True
            passed = passed or matches
    return (passed or not includes) and not excludes


def _judge(name: str, value: str, event: str, headers: Mapping[str, str], payload: str) -> tuple[bool, bool]:
    """(is it an exclude, does it match)."""
    if name == "eventfilter":
        return value.startswith("!"), _found(value.removeprefix("!"), payload)
    options = dict(_ADVANCED.findall(name))
    is_exclude = options.get("action") == "exclude"
    if options.get("name") and options["name"] != event:
        return is_exclude, False
    if "header" in options and options["header"] not in headers:
        return is_exclude, False
    text = headers[options["header"]] if "header" in options else payload
    match options.get("method", "regex"):
        case "none":
            return is_exclude, True
        case "exact":
            return is_exclude, text == value
        case "starts_with":
            return is_exclude, text.startswith(value)
        case "ends_with":
            return is_exclude, text.endswith(value)
        case "contains":
            return is_exclude, value in text
        case _:
            return is_exclude, _found(value, text)


def _found(pattern: str, text: str) -> bool:
    """POSIX extended, where the dot matches line breaks too; what Python cannot read matches nothing."""
    try:
        return re.search(pattern, text, re.DOTALL) is not None
    except re.error:
        return False
