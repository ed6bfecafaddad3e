"""Whether an extension can take a call now."""

from __future__ import annotations

from enum import StrEnum


class DeviceState(StrEnum):
    """`away`: its device is not registered or not reachable. `unknown`: the PBX has not said, or is not connected."""

    FREE = "free"
    RINGING = "ringing"
    BUSY = "busy"
    AWAY = "away"
    UNKNOWN = "unknown"
