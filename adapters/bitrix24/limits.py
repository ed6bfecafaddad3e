"""Bitrix24's documented limits, as data.

A portal counts requests in one leaky bucket, whoever of one address sends them: 50 fit, two a second drain (on the Enterprise plan 250 and five; what
holds everywhere is kept). What may fill the bucket only partly leaves the rest to what matters more.
"""

from __future__ import annotations

from daemon.model.delivery import Kind, Leak, Policy, Rate

POPUP, FINISH, RECORD, SYNC, OAUTH = "popup", "finish", "recording", "sync", "oauth"
MAX_BATCH = 50
PER_S = 2.0
OPERATING_S = 400.0  # of 480 s of a method's run time in ten minutes; above this, what can wait does
USERS_PER_PAGE = 50
LIST_PAGE = 50  # of entities
SYNCED_AT_ONCE = 200  # records: one request to look at them, and at most one for 48 of them to write

POLICY = Policy(
    # attachRecord answers when the portal has fetched the file.
    deadline_s={Kind.POPUP: 3.0, Kind.HANGUP: 3.0, Kind.JOURNAL: 12.0, Kind.RECORDING: 40.0, Kind.SYNC: 40.0},
    # Deliveries in one request; one of them is at most two or three of the 50 commands.
    batch={Kind.POPUP: 12, Kind.HANGUP: 25, Kind.JOURNAL: 15, Kind.RECORDING: 5, Kind.SYNC: SYNCED_AT_ONCE},
    # register answers the same CALL_ID for the same EXTERNAL_CALL_ID, show and hide only set a state, a second record replaces the first, and
    # an entity is looked for before it is made.
    repeatable=frozenset({Kind.POPUP, Kind.HANGUP, Kind.RECORDING, Kind.SYNC}),
    rates={
        POPUP: Leak("portal", 48, PER_S),
        FINISH: Leak("portal", 36, PER_S),
        RECORD: Leak("portal", 24, PER_S),
        SYNC: Leak("portal", 12, PER_S),
        OAUTH: Rate(5, 1.0),
    },
    concurrency=8,
    kept_for_popups=2,
    one_at_a_time=frozenset({Kind.SYNC}),
)
