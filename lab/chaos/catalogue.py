"""Every row by name, in the order of the report."""

from __future__ import annotations

from lab.chaos import crm_rows, machine, node_rows, rows, start_rows
from lab.chaos.rows import Run

ROWS: dict[str, tuple[str, Run]] = {
    "F1": ("kill -9 of the daemon at random points", rows.kills),
    "F1-cdr": ("the same, with CDR to complete from", rows.kills_with_cdr),
    "F2-killed": ("PostgreSQL stopped and killed", rows.postgres_killed),
    "F2-away": ("PostgreSQL refused, frozen, stranded", rows.database_away),
    "F3-lines": ("AMI half open, frozen, sliced, reset in mid-frame", rows.bad_lines),
    "F3-reboot": ("Asterisk rebooted with live calls", rows.reboots),
    "F4": ("AMI flood of 50,000 events/s, a frame of 10 MB", rows.flood),
    "F5": ("every CRM failing in every documented way", crm_rows.crms_fail),
    "F5-dead": ("a CRM that answers nothing", crm_rows.dead_crm),
    "F6": ("FastAGI abused", machine.fastagi),
    "F7": ("the process's clock set an hour on and back", machine.clock),
    "F8-disk": ("the database's disk full", machine.disk_full),
    "F8-files": ("no descriptor left", machine.no_descriptors),
    "F9": ("two daemons, and whoever reads is killed", node_rows.takeover),
    "F9-limits": ("two daemons beyond the limits of CRM accounts", node_rows.limits),
    "F10": ("a migration that fails, a schema that is too new", start_rows.migrations),
    "F11": ("a secret that cannot be read, another key", start_rows.keys),
    "F12": ("a blocked event loop, ended by the watchdog", machine.blocked_loop),
    "F13": ("random trouble on every line at once", rows.mixed),
}
