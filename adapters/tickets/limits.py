"""What the desk takes and how fast it is told, as data. The contract names no limits: these are ours."""

from __future__ import annotations

from daemon.model.delivery import Kind, Policy, Rate

ALL = "all"
# Where our place on the ticket's clock travels: in a header, for a strict receiver may refuse a field that the contract does not name.
SEQUENCE_HEADER = "X-Ticket-Sequence"
MAX_SUBJECT = 500
MAX_MESSAGE = 20_000
MAX_URL = 2_000
MAX_NAME = 255
MAX_ATTACHMENTS = 10
MIB = 1024 * 1024

# Bytes at most, by type or by its first part. What is not here is refused: programs, pages, anything that a browser might run.
ATTACHMENT_BYTES = {
    "image": 10 * MIB,
    "audio": 25 * MIB,
    "video": 25 * MIB,
    "text/plain": 5 * MIB,
    "text/csv": 10 * MIB,
    "application/pdf": 20 * MIB,
    "application/json": 5 * MIB,
    "application/zip": 20 * MIB,
    "application/rtf": 10 * MIB,
    "application/msword": 20 * MIB,
    "application/vnd.ms-excel": 20 * MIB,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": 20 * MIB,
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": 20 * MIB,
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": 20 * MIB,
    "application/vnd.oasis.opendocument.text": 20 * MIB,
    "application/octet-stream": 20 * MIB,
}

TOLD = (Kind.TICKET, Kind.MESSAGE, Kind.STATUS)  # goes to the other side, in the order of the ticket
NOTED = (Kind.JOURNAL, Kind.RECORDING, Kind.CALLED_BACK)  # is written into the desk here

POLICY = Policy(
    deadline_s={**dict.fromkeys(TOLD, 10.0), **dict.fromkeys(NOTED, 5.0)},
    batch={},
    # Whoever repeats an external id gets the record that is there; a call's note is written once.
    repeatable=frozenset((*TOLD, *NOTED)),
    rates={ALL: Rate(100, 1.0)},
    concurrency=8,
)


def most_bytes(mime: str) -> int | None:
    """How large an attachment of this type may be; None: not taken at all."""
    mime = mime.partition(";")[0].strip().lower()
    return ATTACHMENT_BYTES.get(mime, ATTACHMENT_BYTES.get(mime.partition("/")[0]))
