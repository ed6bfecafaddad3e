"""When to try a PBX again. Pure: takes counts and a random number, gives seconds."""

from __future__ import annotations

from daemon.ami.session import RefusedFor

FIRST_RETRY_S = 1.0
GROWTH = 1.8
MAX_RETRY_S = 30.0
STABLE_AFTER_S = 60.0  # a link that was ready this long starts again from the first retry
# A wrong secret is not retried like a lost socket: Asterisk allows 50 unauthenticated sessions, fail2ban far fewer.
CREDENTIALS_RETRY_S = (60.0, 300.0, 900.0)
# The former session lives on the PBX until a write to it fails; that takes a while and then heals by itself.
IN_USE_RETRY_S = 30.0


def lost_delay_s(failures: int, random: float) -> float:
    """Delay before try number `failures` + 1 after a lost or failed connection; `random` in [0, 1): full jitter."""
    return random * min(MAX_RETRY_S, FIRST_RETRY_S * GROWTH ** min(failures, 20))


def refused_delay_s(reason: RefusedFor, refusals: int, random: float) -> float:
    """Delay after the `refusals`-th refusal in a row (from 1), with up to 10 % added so that a fleet spreads out."""
    slow = CREDENTIALS_RETRY_S[min(refusals, len(CREDENTIALS_RETRY_S)) - 1]
    return (IN_USE_RETRY_S if reason is RefusedFor.ALREADY_IN_USE else slow) * (1 + random / 10)
