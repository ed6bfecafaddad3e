"""The product's deadlines, longer than a machine that plays the tests may stand still. A test that is about one of them sets its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

PATIENCE_S = 120.0
# Each is read when it is needed, and running out of it is a failure that a test would take for the product's.
DEADLINES = (
    "daemon.ami.link.CONNECT_DEADLINE_S",
    "daemon.ami.session.GREETING_DEADLINE_S",
    "daemon.ami.session.LOGIN_DEADLINE_S",
    "daemon.ami.session.PONG_DEADLINE_S",
    "daemon.delivery.dispatcher.CLAIM_MARGIN_S",
    "daemon.delivery.dispatcher.REFRESH_DEADLINE_S",
    "daemon.doctor.FASTAGI_DEADLINE_S",
    "daemon.doctor.LOGIN_DEADLINE_S",
    "daemon.doctor.SECOND_OPINION_S",
    "daemon.fastagi.server.ANSWER_DEADLINE_S",
    "daemon.fastagi.server.ENV_DEADLINE_S",
    "daemon.records.known.LIVE_DEADLINE_S",
    "daemon.recordings.service.FILE_DEADLINE_S",
    "daemon.recordings.service.LINKS_DEADLINE_S",
    "daemon.store.embedded.START_DEADLINE_S",
    "daemon.store.embedded.STOP_DEADLINE_S",
    "daemon.store.pool.ACQUIRE_DEADLINE_S",
    "daemon.store.pool.COMMAND_DEADLINE_S",
    "daemon.wiring.alerts.SEND_DEADLINE_S",
    "daemon.wiring.crm.CHECK_DEADLINE_S",
    "daemon.wiring.crm.CONNECT_DEADLINE_S",
    "daemon.wiring.crm_admin.READ_DEADLINE_S",
    "daemon.wiring.crm_admin.RESOLVE_DEADLINE_S",
    "daemon.wiring.crm_admin.WRITE_DEADLINE_S",
    "daemon.wiring.token_keeper.RENEW_DEADLINE_S",
)


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """For folders whose conftest.py imports it."""
    with pytest.MonkeyPatch.context() as patch:
        for deadline in DEADLINES:
            patch.setattr(deadline, PATIENCE_S)
        yield
