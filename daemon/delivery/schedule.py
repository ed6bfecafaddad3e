"""When a failed delivery is tried again. Pure."""

from __future__ import annotations

from daemon.model.delivery import Kind

JITTER = 0.2
# About three days in all; then a dead letter.
JOURNAL_DELAYS_S = (5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 86_400, 86_400)
# A popup is worth three tries while the phone rings.
POPUP_DELAYS_S = (1.5, 5.0)
# A record that is synced is tried three times, then it waits for a person.
SYNC_DELAYS_S = (60.0, 3_600.0)
MAX_AFTER_FACTOR = 2.0  # a CRM's own Retry-After is honoured up to twice the step
_DELAYS_S = {Kind.POPUP: POPUP_DELAYS_S, Kind.HANGUP: POPUP_DELAYS_S, Kind.SYNC: SYNC_DELAYS_S}


def next_delay_s(kind: Kind, attempt: int, random: float, after_s: float | None = None) -> float | None:
    """Seconds until the try that follows attempt number `attempt` (from 1), or None when there is none.

    `random` in [0, 1) spreads the step by 20 % to either side. `after_s`: what the CRM or the adapter asks for; 0 means at once.
    """
    delays = _DELAYS_S.get(kind, JOURNAL_DELAYS_S)
    if attempt > len(delays):
        return None
    step = delays[attempt - 1] * (1 - JITTER + 2 * JITTER * random)
    if after_s is None:
        return step
    return 0.0 if after_s <= 0 else min(max(step, after_s), step * MAX_AFTER_FACTOR)
