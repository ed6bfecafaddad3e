"""CDR rows out of a Master.csv or a table, with their times made absolute. Pure.

Facts: Asterisk cdr/cdr_csv.c (order of the columns; uniqueid, userfield and the newer peeraccount, linkedid, sequence are options),
the columns of cdr_pgsql, cdr_adaptive_odbc and FreePBX (`calldate` instead of start, answer, end). Times are written in the PBX's own
zone or in UTC, and nothing says which: but a Uniqueid begins with the Unix time at which its channel was made, and that tells.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

COLUMNS = (
    "accountcode", "src", "dst", "dcontext", "clid", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer", "end", "duration", "billsec",
    "disposition", "amaflags",
)  # fmt: skip
MAX_FIELD = 1_000
QUARTER_S = 900
_USERFIELD = re.compile(r"(?:audio:)?(?P<name>\S.*\.(?:wav|wav49|mp3|ogg|opus|gsm))", re.IGNORECASE)
_UNIQUEID = re.compile(r"(?:^|-)(\d{9,11})\.\d+$")


@dataclass(frozen=True, slots=True)
class CdrRow:
    """One CDR. Times are Unix seconds once `made_absolute` has seen them; `is_naive`: they lack their zone still."""

    start: float
    answer: float | None
    end: float
    src: str
    dst: str
    dcontext: str
    clid: str
    channel: str
    dstchannel: str
    lastapp: str
    lastdata: str
    disposition: str
    uniqueid: str
    linkedid: str
    sequence: int
    recording: str
    did: str
    is_naive: bool

    @property
    def conversation(self) -> str:
        """What its rows have in common."""
        return self.linkedid or self.uniqueid


def read_csv(lines: Iterable[str]) -> Iterable[CdrRow]:
    """Rows of a Master.csv; a first line of column names is understood. Lines that are no CDR are left out."""
    names: Sequence[str] | None = None
    for number, fields in enumerate(_csv_fields(lines)):
        if number == 0 and {"channel", "disposition"} <= {field.strip().lower() for field in fields}:
            names = [field.strip().lower() for field in fields]
            continue
        row = row_of(dict(zip(names, fields, strict=False)) if names else _by_position(fields))
        if row is not None:
            yield row


def _csv_fields(lines: Iterable[str]) -> Iterable[list[str]]:
    reader = csv.reader(line.replace("\0", "") for line in lines)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:  # a field beyond the reader's limit: no CDR
            continue


def _by_position(fields: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = dict(zip(COLUMNS, fields, strict=False))
    rest = list(fields[len(COLUMNS) :])
    if len(rest) >= 3 and rest[-1].isdigit():  # peeraccount, linkedid, sequence come together
        found["sequence"], found["linkedid"] = rest[-1], rest[-2]
        rest = rest[:-3]
    found.update(zip(("uniqueid", "userfield"), rest, strict=False))
    return found


def row_of(values: Mapping[str, Any]) -> CdrRow | None:
    """A row from its columns by name, or None when it has no time or no channel."""
    found = {str(key).lower(): value for key, value in values.items()}
    start, is_naive = _time(found.get("start") or found.get("calldate"))
    if start is None or not found.get("channel"):
        return None
    duration, billsec = _number(found.get("duration")), _number(found.get("billsec"))
    answer, end = _time(found.get("answer"))[0], _time(found.get("end"))[0]
    if end is None:
        end = start + duration
    disposition = str(found.get("disposition") or "").upper()
    if answer is None and (billsec > 0 or disposition == "ANSWERED"):  # a table with calldate alone
        answer = end - billsec
    text = {name: str(found.get(name) or "")[:MAX_FIELD] for name in ("src", "dst", "dcontext", "clid", "channel", "dstchannel", "lastapp", "lastdata")}
    return CdrRow(
        start=start, answer=answer, end=max(start, end), **text, disposition=disposition,
        uniqueid=str(found.get("uniqueid") or "")[:150], linkedid=str(found.get("linkedid") or "")[:150], sequence=int(_number(found.get("sequence"))),
        recording=_recording(found), did=str(found.get("did") or "")[:100], is_naive=is_naive,
    )  # fmt: skip


def name_in_userfield(userfield: str) -> str | None:
    """The recording that a userfield names (FreePBX writes `audio:` before it), or None."""
    found = _USERFIELD.fullmatch(userfield.strip())
    return found["name"] if found and len(userfield) <= MAX_FIELD and userfield.isprintable() else None


def _recording(found: Mapping[str, Any]) -> str:
    """The recording's name: in a column of its own where there is one, else in the userfield if that looks like a file of sound."""
    return str(found.get("recordingfile") or "")[:MAX_FIELD] or name_in_userfield(str(found.get("userfield") or "")) or ""


def _time(value: Any) -> tuple[float | None, bool]:
    """A time as Unix seconds; without a zone as if it were UTC, and True."""
    if not value:
        return None, False
    if not isinstance(value, datetime):
        try:
            value = datetime.fromisoformat(str(value).strip())
        except ValueError:
            return None, False
    if value.year < 1990:  # `0000-00-00` and 1970: never
        return None, False
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp(), value.tzinfo is None


def _number(value: Any) -> float:
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        return 0.0
    return number if 0 <= number < 10_000_000 else 0.0


def made_absolute(rows: Sequence[CdrRow], zone: ZoneInfo) -> list[CdrRow]:
    """The rows with real times. The clock they were written by is read from their Uniqueids; where these tell nothing it is `zone`."""
    votes: Counter[int] = Counter()
    for row in rows:
        if row.is_naive and (made := _UNIQUEID.search(row.uniqueid)):
            votes[round((row.start - int(made[1])) / QUARTER_S) * QUARTER_S] += 1
    offset = votes.most_common(1)[0][0] if votes else None
    return [_shifted(row, offset, zone) if row.is_naive else row for row in rows]


def _shifted(row: CdrRow, offset: int | None, zone: ZoneInfo) -> CdrRow:
    local = datetime.fromtimestamp(row.start, UTC).replace(tzinfo=zone)
    by_zone = int(local.utcoffset().total_seconds()) if local.utcoffset() is not None else 0  # type: ignore[union-attr]
    made = _UNIQUEID.search(row.uniqueid)
    # The zone's summer time may begin within the rows: its offset on the day counts, as long as it is the zone's clock at all.
    is_zone = offset is None or offset == by_zone or (made is not None and abs(row.start - by_zone - int(made[1])) < QUARTER_S / 2)
    shift = by_zone if is_zone else offset or 0
    return replace(
        row, start=row.start - shift, answer=None if row.answer is None else row.answer - shift, end=row.end - shift, is_naive=False
    )  # fmt: skip
