"""What the other side of a desk sends: bodies of the contract and the predecessor's legacy ones. Pure: JSON in, a value out.

Fields that are not known are ignored: the other side may add some.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from adapters.tickets.limits import MAX_ATTACHMENTS, MAX_MESSAGE, MAX_NAME, MAX_SUBJECT, MAX_URL, most_bytes
from adapters.tickets.limits import SEQUENCE_HEADER as SEQUENCE_HEADER
from daemon.model.ticket import MAX_SEQUENCE, Attachment, NewMessage, NewStatus, NewTicket, Side, TicketStatus

UNKNOWN_TYPE = "application/octet-stream"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MIME = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")
_PROJECT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class BadTicket(ValueError):
    """The body makes no sense; `field` is the one at fault."""

    def __init__(self, message: str, field: str | None = None, code: str = "bad_parameter") -> None:
        super().__init__(message)
        self.field = field
        self.code = code


def read_ticket(body: Any) -> NewTicket:
    """{external_ticket_id, subject, message, attachments, external_url, project}. Raises BadTicket."""
    found = _object(body)
    return NewTicket(
        _uuid(found, "external_ticket_id"), _text(found, "subject", MAX_SUBJECT), _message(found), _attachments(found),
        check_url(found.get("external_url"), "external_url"), _project(found),
    )  # fmt: skip


def read_message(body: Any, sequence: str | None = None) -> NewMessage:
    """{external_ticket_id, message, attachments, sender, external_message_id}. `sequence`: of the header. Raises BadTicket."""
    found = _object(body)
    ticket, text, attachments = _uuid(found, "external_ticket_id"), _message(found), _attachments(found)
    try:
        sender = Side(found.get("sender", ""))
    except (ValueError, TypeError):
        raise BadTicket("sender is tma or crm", "sender") from None
    external = _uuid(found, "external_message_id") if sender is Side.TMA else _whole(found, "external_message_id")
    return NewMessage(ticket, text, sender, external, attachments, _sequence(found, sequence))


def read_status(body: Any, sequence: str | None = None) -> NewStatus:
    """{external_ticket_id, status, sequence?}. Raises BadTicket."""
    found = _object(body)
    ticket = _uuid(found, "external_ticket_id")
    try:
        status = TicketStatus(found.get("status", ""))
    except (ValueError, TypeError):
        raise BadTicket(f"status is one of {', '.join(TicketStatus)}", "status") from None
    return NewStatus(ticket, status, _sequence(found, sequence))


def read_legacy_ticket(body: Any) -> NewTicket:
    """The predecessor's {ticket_id, theme, message, attachments, project, external_url}. Raises BadTicket."""
    found = _object(body)
    return NewTicket(
        _uuid(found, "ticket_id"), _text(found, "theme", MAX_SUBJECT), _message(found), _attachments(found, legacy=True),
        check_url(found.get("external_url") or None, "external_url"), _project(found),
    )  # fmt: skip


def read_legacy_message(body: Any, sender: Side) -> NewMessage:
    """The predecessor's {ticket_id, message, attachments, project}: it has no id of its own and does not say whose it is. Raises BadTicket."""
    found = _object(body)
    return NewMessage(_uuid(found, "ticket_id"), _message(found), sender, None, _attachments(found, legacy=True))


def read_attachments(body: Any) -> tuple[Attachment, ...]:
    """A list of {name, url, mime, size}, as somebody here sends it too. Raises BadTicket."""
    return _attachments({"attachments": body})


def check_text(value: Any, name: str, most: int, *, may_be_empty: bool = False) -> str:
    """Text that can be stored and shown, at most `most` characters. Raises BadTicket."""
    return _text({name: value}, name, most, may_be_empty=may_be_empty)


def _object(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, Mapping):
        raise BadTicket("the body must be a JSON object")
    return body


def _text(body: Mapping[str, Any], name: str, most: int, *, may_be_empty: bool = False) -> str:
    value = body.get(name)
    if value is None and not may_be_empty:
        raise BadTicket(f"{name} is missing", name, "missing_parameter")
    if not isinstance(value if value is not None else "", str):
        raise BadTicket(f"{name} is not text", name)
    text = value or ""
    if not text.strip() and not may_be_empty:
        raise BadTicket(f"{name} is empty", name)
    if len(text) > most:
        raise BadTicket(f"{name} is longer than {most} characters", name, "too_long")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadTicket(f"{name} has a half of a character in it", name) from None
    if "\0" in text:
        raise BadTicket(f"{name} has a NUL in it", name)
    return text


def _message(body: Mapping[str, Any]) -> str:
    """The text; only beside attachments it may be empty."""
    return _text(body, "message", MAX_MESSAGE, may_be_empty=bool(body.get("attachments")))


def _uuid(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise BadTicket(f"{name} is missing", name, "missing_parameter")
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise BadTicket(f"{name} is a UUID, like 0b9f3c52-6f0e-4f7e-9a3e-0d8f3a1c2b4d", name)
    return value.lower()


def _whole(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise BadTicket(f"{name} is missing", name, "missing_parameter")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise BadTicket(f"{name} is a whole number", name)
    return str(value)


def _sequence(body: Mapping[str, Any], header: str | None) -> int | None:
    value: Any = body.get("sequence")
    if value is None and header is not None:
        value = int(header) if header.isascii() and header.isdigit() and len(header) < 20 else header
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEQUENCE:
        raise BadTicket("sequence is a whole number that grows with every message and status of a ticket", "sequence")
    return value


def _project(body: Mapping[str, Any]) -> str:
    value = body.get("project")
    if value is None:
        return Side.TMA.value
    if not isinstance(value, str) or not _PROJECT.fullmatch(value):
        raise BadTicket("project is a short name of letters and digits, like tma", "project")
    return value


def check_url(value: Any, name: str) -> str | None:
    """An http address that a page may link to, or None. Raises BadTicket."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_URL:
        raise BadTicket(f"{name} is a URL of at most {MAX_URL} characters", name)
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http") or any(ord(character) < 33 or character in '"<>\\' or ord(character) > 126 for character in value):
        raise BadTicket(f"{name} is not an http address", name)
    return value


def _attachments(body: Mapping[str, Any], *, legacy: bool = False) -> tuple[Attachment, ...]:
    value = body.get("attachments")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadTicket("attachments is a list", "attachments")
    if len(value) > MAX_ATTACHMENTS:
        raise BadTicket(f"a message has at most {MAX_ATTACHMENTS} attachments", "attachments", "too_long")
    return tuple(_attachment({"url": item} if legacy and isinstance(item, str) else item, f"attachments.{n}", legacy) for n, item in enumerate(value))


def _attachment(item: Any, name: str, legacy: bool) -> Attachment:
    if not isinstance(item, Mapping):
        raise BadTicket(f"{name} is an object {{name, url, mime, size}}", name)
    url = check_url(item.get("url"), f"{name}.url")
    if url is None:
        raise BadTicket(f"{name}.url is missing", f"{name}.url", "missing_parameter")
    title = item.get("name")
    if title is None and legacy:
        title = (unquote(urlsplit(url).path).rpartition("/")[2] or "file")[:MAX_NAME]
    title = check_text(title, f"{name}.name", MAX_NAME)
    if not title.isprintable():
        raise BadTicket(f"{name}.name has characters that do not print", f"{name}.name")
    mime = item.get("mime")
    mime = (mimetypes.guess_type(title)[0] or UNKNOWN_TYPE) if mime is None else mime
    if not isinstance(mime, str) or not _MIME.fullmatch(mime := mime.partition(";")[0].strip().lower()):
        raise BadTicket(f"{name}.mime is a type, like image/png", f"{name}.mime")
    most, size = most_bytes(mime), item.get("size")
    if most is None:
        raise BadTicket(f"{name}: files of type {mime} are not taken", f"{name}.mime", "attachment_refused")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise BadTicket(f"{name}.size is a number of bytes", f"{name}.size")
    if size is not None and size > most:
        raise BadTicket(f"{name} is larger than the {most} bytes that {mime} may have", f"{name}.size", "attachment_refused")
    return Attachment(title, url, mime, size)
