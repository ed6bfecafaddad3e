"""Structured logs to stderr: console for people, JSON for the journal. Redaction is the last step before the text."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from daemon.security.redact import for_log


def configure(level: str, format_: str | None) -> None:
    """Sets logging up once; `format_`: console, json, or None to choose by whether stderr is a terminal."""
    as_json = format_ == "json" or (format_ is None and not sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False) if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redacted,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)


def _redacted(_: Any, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    # Times, names of events and traces stay as they are; everything else may hold what a stranger sent.
    return {key: value if key in ("timestamp", "level", "exception") else for_log(value, key) for key, value in event.items()}
