"""The root of the error tree: errors that are shown to a person, in one line."""

from __future__ import annotations


class VochidError(Exception):
    """An expected failure: its text says what is wrong and what to do, and carries no secret.

    `code` is stable and machine-readable; `field` names the setting at fault, dotted, when there is one.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.field = field


class SettingsError(VochidError):
    """A setting (process, enterprise or integration) is unusable."""

    code = "bad_setting"


class NotFound(VochidError):
    """There is no such thing, or it belongs to somebody else: the two are told alike."""

    code = "not_found"
