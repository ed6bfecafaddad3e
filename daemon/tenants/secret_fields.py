"""Secrets inside documents, found by the models themselves: SecretStr fields, wherever they are nested. Pure.

Four forms: plain (validated, in memory), sealed ({"sealed": "v1:…"}, at rest), shown ({"set": true, "last4": …}, to
people), and what a person sends back (omitted or the shown object: keep; null: clear; string: replace).
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, SecretStr

Change = Callable[[Any, str], Any]


def map_secrets(model: type[BaseModel], data: dict[str, Any], change: Change, path: str = "") -> dict[str, Any]:
    """A copy of `data` (JSON of `model`) with change(value, dotted path) in place of every secret that is present."""
    result = dict(data)
    for key, annotation in _fields_with_secrets(model):
        if key in result:
            result[key] = _map(annotation, result[key], change, f"{path}.{key}" if path else key)
    return result


@functools.cache
def _fields_with_secrets(model: type[BaseModel]) -> tuple[tuple[str, Any], ...]:
    """The fields that hold secrets at whatever depth, by key: thousands of lines and phones are not walked through for none."""
    return tuple((field.alias or name, field.annotation) for name, field in model.model_fields.items() if _may_hold_secrets(field.annotation))


def _may_hold_secrets(annotation: Any) -> bool:
    for option in _options(annotation):
        if option is SecretStr or (isinstance(option, type) and issubclass(option, BaseModel) and _fields_with_secrets(option)):
            return True
        if typing.get_origin(option) in (tuple, list) and any(_may_hold_secrets(item) for item in typing.get_args(option)):
            return True
    return False


def _map(annotation: Any, value: Any, change: Change, path: str) -> Any:
    options = _options(annotation)
    if SecretStr in options:
        return None if value is None else change(value, path)
    models = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
    if isinstance(value, dict) and models:
        return map_secrets(_fitting(models, value), value, change, path)
    items = next((typing.get_args(option) for option in options if typing.get_origin(option) in (tuple, list)), ())
    if isinstance(value, (list, tuple)) and items:
        return [_map(items[0], item, change, f"{path}.{_item_name(item, i)}") for i, item in enumerate(value)]
    return value


def _options(annotation: Any) -> list[Any]:
    """The alternatives of a type: unions and Annotated taken apart."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [option for argument in typing.get_args(annotation) for option in _options(argument)]
    return [annotation]


def _fitting(models: list[type[BaseModel]], value: dict[str, Any]) -> type[BaseModel]:
    """Of several models, the one whose `source` is the value's."""
    for model in models:
        field = model.model_fields.get("source")
        if field is not None and value.get("source") in typing.get_args(field.annotation):
            return model
    return models[0]


def _item_name(item: Any, index: int) -> str:
    return str(item.get("name", index)) if isinstance(item, dict) else str(index)


def collect(model: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
    """Every secret that is present, by dotted path; items of a list are named by their `name`."""
    found: dict[str, Any] = {}

    def note(value: Any, path: str) -> Any:
        found[path] = value
        return value

    map_secrets(model, data, note)
    return found


def keep_stored(model: type[BaseModel], sent: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """What a person sent, with the stored secrets (in whatever form) where they were left out or sent back as shown."""
    kept = collect(model, stored)
    result = map_secrets(model, _with_omitted(model, sent, stored), lambda value, path: kept.get(path) if is_shown(value) else value)
    return result


def _with_omitted(model: type[BaseModel], sent: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    result = dict(sent)
    for name, field in model.model_fields.items():
        key, options = field.alias or name, _options(field.annotation)
        old = stored.get(key)
        if SecretStr in options:
            if key not in result and old is not None:
                result[key] = old
            continue
        models = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if isinstance(result.get(key), dict) and isinstance(old, dict) and models:
            result[key] = _with_omitted(_fitting(models, result[key]), result[key], old)
        items = next((typing.get_args(option) for option in options if typing.get_origin(option) in (tuple, list)), ())
        if isinstance(result.get(key), list) and isinstance(old, list) and items and isinstance(items[0], type) and issubclass(items[0], BaseModel):
            by_name = {item.get("name"): item for item in old if isinstance(item, dict)}
            result[key] = [_with_omitted(items[0], item, by_name.get(item.get("name"), {})) if isinstance(item, dict) else item for item in result[key]]
    return result


def is_shown(value: Any) -> bool:
    """Whether this is a secret as people see it."""
    return isinstance(value, dict) and "set" in value and set(value) <= {"set", "last4"}


def is_sealed(value: Any) -> bool:
    """Whether this is a secret at rest."""
    return isinstance(value, dict) and set(value) == {"sealed"} and isinstance(value["sealed"], str)


def shown(secret: str) -> dict[str, Any]:
    """A secret as people see it; a short one shows nothing of itself."""
    return {"set": True, "last4": secret[-4:] if len(secret) >= 12 else ""}
