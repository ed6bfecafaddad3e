"""What the settings of every integration have in common, and the types that adapters declare theirs with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class UrlCheck(Protocol):
    """The egress rule, handed in by whoever validates."""

    def problem_with(self, url: str) -> str | None:
        """What is wrong with the URL, or None."""


def _allowed_url(url: str, info: ValidationInfo) -> str:
    check: UrlCheck | None = (info.context or {}).get("egress")
    problem = check.problem_with(url) if check is not None else None
    if problem:
        raise ValueError(problem)
    return url.rstrip("/")


CrmUrl = Annotated[str, Field(min_length=1, max_length=2_000), AfterValidator(_allowed_url)]


class Strict(BaseModel):
    """Unknown fields are errors: a typo must not silently do nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Send(Strict):
    """What an integration is told."""

    popup_in: bool = True
    popup_out: bool = True
    hangup: bool = True
    journal: bool = True
    recordings: bool = True


class Rule(Strict):
    """What is made of a call; null matches anything, the first rule that fits wins."""

    line: str | None = None
    direction: Literal["in", "out"] | None = None
    answered: bool | None = None
    known: bool | None = None
    do: Literal["lead", "contact", "unsorted", "task", "ticket", "nothing"]
    responsible: str = "last_talked"
    task_deadline_s: int | None = Field(default=None, ge=60, le=30 * 86_400)


class IntegrationSettings(Strict):
    """Every integration's settings begin with these.

    inbound_tokens: what the other side proves itself with, by purpose: the fields whose values are taken, found by their keyed hash.
    rotates: secrets with an overlap: when the one is replaced and nothing is said of the other, the former value moves there.
    stand_ins: what may stand for a secret that is lost, by field, where any word does not do.
    makes: what its rules can make of a call, nothing: it follows no rules; rules_by: what its rules look at and say besides.
    """

    inbound_tokens: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    rotates: ClassVar[Mapping[str, str]] = {}
    stand_ins: ClassVar[Mapping[str, str]] = {}
    makes: ClassVar[tuple[str, ...]] = ()
    rules_by: ClassVar[tuple[str, ...]] = ("line", "direction", "answered", "known", "responsible", "task_deadline_s")

    enabled: bool = True
    mode: Literal["live", "observe"] = Field(default="live", description="observe: everything is computed and logged, nothing is sent")
    send: Send = Send()
    user_extensions: dict[str, str | None] = Field(default={}, max_length=10_000, description="CRM user id -> extension")
    rules: tuple[Rule, ...] = Field(default=(), max_length=200)

    @field_validator("user_extensions")
    @classmethod
    def _one_manager_per_extension(cls, value: dict[str, str | None]) -> dict[str, str | None]:
        held = [extension for extension in value.values() if extension]
        doubled = next((extension for extension in held if held.count(extension) > 1), None)
        if doubled:
            raise ValueError(f"extension {doubled} is given to two managers")
        return value
