"""The decorator of the model's values. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def immutable(cls: type[T]) -> type[T]:
    """A dataclass whose values nobody changes: compared and hashed by them, as with `frozen=True`.

    The type checker sees to it, not the interpreter: a frozen dataclass asks at every field, and making a Call of it takes five times as long.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
