"""RetailCRM's documented limits, as data."""

from __future__ import annotations

from daemon.model.delivery import Kind, Policy, Rate

TELEPHONY, OTHER = "telephony", "other"
MAX_CALLS_PER_UPLOAD = 50
MAX_TEXT = 255

POLICY = Policy(
    deadline_s={Kind.POPUP: 3.0, Kind.HANGUP: 3.0, Kind.JOURNAL: 10.0, Kind.RECORDING: 10.0},
    batch={Kind.JOURNAL: MAX_CALLS_PER_UPLOAD},
    # calls/upload knows a call by its externalId; call/event by callExternalId only re-draws the same card.
    repeatable=frozenset({Kind.POPUP, Kind.HANGUP, Kind.JOURNAL, Kind.RECORDING}),
    # Per API key: 40 requests/s below /telephony, 10 requests/s elsewhere; above it 503 "Rate limit exceeded".
    # A little slower than that, for on the way requests come closer together.
    rates={TELEPHONY: Rate(40, 1.1), OTHER: Rate(10, 1.1)},
    concurrency=8,
)
