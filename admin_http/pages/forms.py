"""Forms made of settings models: one field per setting, read back as the document that the model validates.

A setting's name is its dotted place in the document. Secrets are write-only: an empty field keeps what is stored.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from admin_http.pages.labels import HELP, LABELS

Option = tuple[str, str]  # of a choice: the value and its words


@dataclass(frozen=True, slots=True)
class FormField:
    """A setting as the template shows it (components.html, `setting`).

    kind: text, number, secret, toggle, choice, lines (one item per line), group (settings inside), either (a choice with settings of each).
    `default`: of a number, what an empty field means. `shown_when`: for a setting that belongs to one choice of its group.
    """

    name: str
    label: str
    kind: str
    value: Any = None
    default: int | None = None
    help: str = ""
    error: str = ""
    required: bool = False
    optional: bool = False
    options: Sequence[Option] = ()
    fields: Sequence[FormField] = ()
    shown_when: str = ""


def make_fields(
    model: type[BaseModel], values: Mapping[str, Any], *, prefix: str = "", errors: Mapping[str, str] | None = None, skip: Sequence[str] = ()
) -> list[FormField]:
    """The form's fields with the values of a shown document; `skip`: names that have a place of their own elsewhere."""
    return [
        _field(_key(name, info), info, values, prefix, errors or {}) for name, info in model.model_fields.items() if _key(name, info) not in skip
    ]  # fmt: skip


def read_fields(model: type[BaseModel], form: Mapping[str, str], *, prefix: str = "", skip: Sequence[str] = ()) -> dict[str, Any]:
    """The document's part that a submitted form stands for. What is no number stays text: validation says so, with the field."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        key = _key(name, info)
        if key not in skip:
            value = _read(info, form, f"{prefix}{key}")
            if value is not _OMITTED:
                found[key] = value
    return found


_OMITTED = object()


def _read(info: FieldInfo, form: Mapping[str, str], name: str) -> Any:
    kinds, optional = _options(info.annotation)
    text = form.get(name, "").strip()
    models = [kind for kind in kinds if _is_model(kind)]
    if SecretStr in kinds:
        return None if optional and form.get(f"{name}.clear") else text or _OMITTED
    if len(models) > 1:
        chosen = next((model for model in models if form.get(f"{name}.source", "") in _sources(model)), models[0])
        return {**read_fields(chosen, form, prefix=f"{name}.", skip=("source",)), "source": form.get(f"{name}.source", "")}
    if models:
        return None if optional and not form.get(f"{name}.on") else read_fields(models[0], form, prefix=f"{name}.")
    if bool in kinds:
        return form.get(name) == "on"
    if _is_list(kinds):
        return None if optional and not text else [line.strip() for line in text.splitlines() if line.strip()]
    if not text and (optional or info.default is not PydanticUndefined):
        return None if optional else info.get_default(call_default_factory=True)
    return int(text) if int in kinds and text.lstrip("-").isdecimal() and len(text) < 12 else text


def _field(key: str, info: FieldInfo, values: Mapping[str, Any], prefix: str, errors: Mapping[str, str]) -> FormField:
    name = f"{prefix}{key}"
    kinds, optional = _options(info.annotation)
    value = values.get(key, None if info.default is PydanticUndefined else info.get_default(call_default_factory=True))
    common: dict[str, Any] = {
        "name": name, "label": LABELS.get(key, key.replace("_", " ")), "help": HELP.get(key, info.description or ""),
        "error": next((text for place, text in errors.items() if place == name or place.startswith(f"{name}.")), ""),
        "required": info.is_required(), "optional": optional,
    }  # fmt: skip
    models = [kind for kind in kinds if _is_model(kind)]
    if SecretStr in kinds:
        shown = value if isinstance(value, Mapping) and value.get("set") else None
        return FormField(kind="secret", value=shown, **{**common, "required": info.is_required() and shown is None})
    if models:
        return _group(models, value, name, optional, errors, common)
    if bool in kinds:
        return FormField(kind="toggle", value=bool(value), **common)
    choices = [choice for kind in kinds if typing.get_origin(kind) is typing.Literal for choice in typing.get_args(kind)]
    if choices:
        return FormField(kind="choice", value=value, options=_choices(choices), **common)
    if _is_list(kinds):
        return FormField(kind="lines", value="\n".join(map(str, value or ())), **common)
    if int in kinds:
        return FormField(kind="number", value=value, default=info.default if isinstance(info.default, int) else None, **common)
    return FormField(kind="text", value=value, **common)


def _group(models: list[type[BaseModel]], value: Any, name: str, optional: bool, errors: Mapping[str, str], common: dict[str, Any]) -> FormField:
    given = value if isinstance(value, Mapping) else value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else {}
    common = {**common, "error": ""}  # a setting inside has it
    if len(models) == 1:
        return FormField(kind="group", value=value is not None, fields=make_fields(models[0], given, prefix=f"{name}.", errors=errors), **common)
    sources = {source: model for model in models for source in _sources(model)}
    fields: dict[tuple[str, str], FormField] = {}
    for source, model in sources.items():
        is_chosen = given.get("source") in _sources(model)
        for field in make_fields(model, given if is_chosen else {}, prefix=f"{name}.", errors=errors, skip=("source",)):
            before = fields.get((field.name, field.kind))
            when = f"{before.shown_when} {source}" if before else source
            fields[(field.name, field.kind)] = replace(field if is_chosen or before is None else before, shown_when=when, required=False)
    return FormField(kind="either", value=given.get("source", "none"), options=_choices(list(sources)), fields=list(fields.values()), **common)


def _choices(values: Sequence[Any]) -> list[Option]:
    return [(str(value), LABELS.get(f"={value}", str(value))) for value in values]


def _sources(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(map(str, typing.get_args(model.model_fields["source"].annotation)))


def _key(name: str, info: FieldInfo) -> str:
    return info.alias or name


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_list(kinds: Sequence[Any]) -> bool:
    return any(typing.get_origin(kind) in (tuple, list) for kind in kinds)


def _options(annotation: Any) -> tuple[list[Any], bool]:
    """The alternatives of a type without None, and whether None is one of them."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        parts = [_options(part) for part in typing.get_args(annotation)]
        return [kind for kinds, _ in parts for kind in kinds], any(optional for _, optional in parts)
    return ([], True) if annotation is type(None) else ([annotation], False)
