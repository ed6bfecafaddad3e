"""What never reaches a log, a JSON answer or a page in full."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_SECRET_KEY = re.compile(r"(?i)(secret|password|token|api[-_]?key|authorization|cookie|signature|^key$)")
_IN_TEXT = re.compile(r"(?i)((?:api_?key|token|secret|password|auth)=)[^&\s\"']+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029\u202a-\u202e]")
_NUMBER = re.compile(r"(?<![\w.-])(\+?\d{5,15})(?![\w.-])")
_PHONE_IN_TEXT = re.compile(r"(?<![\w.-])(\+?\d{9,15})(?![\w.-])")  # an error may quote the number it is about
_NUMBER_KEYS = frozenset({"phone", "number", "customer_number", "caller", "to"})


def redact(value: Any, key: str = "") -> Any:
    """A copy in which values under secret-looking names, and secrets inside URLs, are masked."""
    if _SECRET_KEY.search(key) and value is not None and not isinstance(value, (Mapping, list, bool)):
        return MASK
    if isinstance(value, Mapping):
        return {str(name): redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, key) for item in value]
    if isinstance(value, str):
        return _IN_TEXT.sub(rf"\1{MASK}", value)
    return value


def for_log(value: Any, key: str = "") -> Any:
    """As redact, for the journal: control characters made visible and phone numbers down to their last four digits."""
    value = redact(value, key)
    if isinstance(value, dict):
        return {name: for_log(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [for_log(item, key) for item in value]
    if isinstance(value, str):
        value = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
        pattern = _NUMBER if key in _NUMBER_KEYS else _PHONE_IN_TEXT
        value = pattern.sub(lambda match: "*" * (len(match[1]) - 4) + match[1][-4:], value)
    return value
