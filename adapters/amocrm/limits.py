"""amoCRM's documented limits, as data."""

from __future__ import annotations

from daemon.model.delivery import Kind, Policy, Rate

API = "api"
MAX_CALLS_AT_ONCE = 50
USERS_PER_PAGE = NOTES_PER_PAGE = 250  # the largest page of a list
MAX_NOTE_PAGES = 4
THROTTLE_PAUSE_S = 2.0
BLOCKED_PAUSE_S = 300.0  # blocked for abuse: asking on would prolong it
REFUSED_PAUSE_S = 600.0  # not paid, no rights: somebody has to act there, and nothing is lost meanwhile
LOOK_AGAIN_S = 15.0
EXCHANGE_S = 8.0  # for a token exchange, after the request's own deadline: cut short it would cost the connection

POLICY = Policy(
    deadline_s={Kind.POPUP: 3.0, Kind.JOURNAL: 10.0, Kind.RECORDING: 10.0, Kind.TASK: 10.0, Kind.ORDER: 10.0},
    batch={Kind.JOURNAL: MAX_CALLS_AT_ONCE},
    # A popup shown twice is one popup; a note that is given its link again has it once. Everything else would stand there twice.
    repeatable=frozenset({Kind.POPUP, Kind.RECORDING}),
    # 7 requests/s per account; above it 429, and 403 for the whole address when it goes on. A little slower than that, for on
    # the way requests come closer together.
    rates={API: Rate(7, 1.1)},
    concurrency=4,
    mp3=True,
)
