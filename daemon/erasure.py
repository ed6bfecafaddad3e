"""A customer asks to be forgotten: all that is stored about their number goes, with a report of what went and what stays."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from daemon.errors import NotFound, VochidError
from daemon.model.phone import BadNumber, to_e164
from daemon.model.phone_forms import PhoneForms, forms_of
from daemon.recordings.directory import remove_below
from daemon.recordings.names import parts_of
from daemon.store.audit import Actor, AuditLog
from daemon.store.crm_records import CrmRecordRepository
from daemon.store.erasure import ErasureRepository, Report
from daemon.store.pool import Database
from daemon.tenants.document import DirectoryRecordings, Enterprise, HttpRecordings, NoRecordings
from daemon.tenants.service import ERASED_CHANNEL, Tenants

FILE_DEADLINE_S = 20.0  # of one file: a file server that hangs holds up the rest no longer
STAYS = (
    "calls, without number, name and recording, and the sums made of them",
    "the audit, which holds no customer's number",
    "copies in files that were attached to other tickets",
    "what CRMs, the PBX (its CDR, logs and voicemail) and backups of the database hold",
)


@dataclass(frozen=True, slots=True)
class Erasure:
    """For commands and the API."""

    db: Database
    tenants: Tenants
    audit: AuditLog
    records: CrmRecordRepository

    async def erase(self, enterprise: str, phone: str, by: Actor, *, dry_run: bool) -> dict[str, Any]:
        """What was found of a number and, unless it is a dry run, is gone. The audit notes how much, and not whose.

        Raises NotFound without such an enterprise, VochidError for what is no customer's number.
        """
        tenancy = self.tenants.get(enterprise)
        if tenancy is None:
            raise NotFound(f"there is no enterprise {enterprise}")
        forms = _forms(phone, tenancy.enterprise)
        report = await ErasureRepository(self.db, self.records).erase(enterprise, forms, dry_run=dry_run)
        deleted, left = await _files(tenancy.enterprise, report, dry_run=dry_run)
        if not dry_run:
            await self.db.fetch("select pg_notify($1, $2)", ERASED_CHANNEL, json.dumps({"enterprise_number": enterprise}))
            counts = {name: count for name, count in report.counts.items() if count}
            await self.audit.note(
                by, "number erased", enterprise=enterprise, details={**counts, "recordings": deleted, "recordings left": len(left), "live": report.still_live}
            )
        return {
            "dry_run": dry_run,
            "found": {**report.counts, "recordings": deleted},
            "recordings_left": left,
            "still_live": report.still_live,
            "in_settings": report.in_settings,
            "stays": list(STAYS),
        }


def _forms(phone: str, enterprise: Enterprise) -> PhoneForms:
    try:
        forms = forms_of(phone, enterprise.country)
    except BadNumber as error:
        raise VochidError(str(error), code="bad_parameter", field="phone") from None
    own = {to_e164(number, enterprise.country) or number for number in (*(line.number for line in enterprise.lines), *enterprise.employee_mobiles)}
    if own & set(forms.written) or any(phone.number in forms.written for phone in enterprise.internal_phones):
        raise VochidError("this is a number of the enterprise's own: take it out of its settings first", code="bad_parameter", field="phone")
    return forms


async def _files(enterprise: Enterprise, report: Report, *, dry_run: bool) -> tuple[int, list[dict[str, str]]]:
    """How many recordings go (or would), and those that somebody must delete by hand."""
    sources = {pbx.name: pbx.recordings for pbx in enterprise.pbxs}
    deleted, left = 0, []
    for pbx, name in report.recordings:
        source = sources.get(pbx, NoRecordings())
        why = "the PBX serves it: delete it there" if isinstance(source, HttpRecordings) else "its directory is not known here"
        parts = parts_of(name, source.pbx_path) if isinstance(source, DirectoryRecordings) else None
        if isinstance(source, DirectoryRecordings) and parts is not None:
            try:
                if not dry_run:
                    async with asyncio.timeout(FILE_DEADLINE_S):
                        await asyncio.to_thread(remove_below, source.path, parts)
                deleted += 1
                continue
            except (OSError, TimeoutError) as error:
                why = f"it cannot be deleted: {getattr(error, 'strerror', None) or type(error).__name__}"
        left.append({"pbx": pbx, "name": name, "why": why})
    return deleted, left
