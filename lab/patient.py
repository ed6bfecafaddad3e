"""`vochid` with deadlines that no slow machine misses, for tests that are about something else: `python -m lab.patient run`.

VOCHID_LAB_PATIENCE names what it has patience with, by commas. The deadlines are the daemon's constants, which an installation has no reason to set:
they are changed before whoever uses them is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

LONG_S = 60.0
CLICK_S = 20.0  # some tests are about clicks that are not answered
VARIABLE = "VOCHID_LAB_PATIENCE"

# By what is waited for, by module: constants and their values.
PATIENCE: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "pbx": {
        "daemon.ami.session": dict.fromkeys(("GREETING_DEADLINE_S", "LOGIN_DEADLINE_S", "ACTION_DEADLINE_S", "PING_AFTER_S", "PONG_DEADLINE_S"), LONG_S),
        "daemon.ami.link": {"CONNECT_DEADLINE_S": LONG_S},
        "daemon.doctor": {"LOGIN_DEADLINE_S": LONG_S},
        "daemon.tape": {"LOGIN_DEADLINE_S": LONG_S},
    },
    "crm": {
        "adapters.retailcrm.deliver": {"POPUP_LIFETIME_S": 600.0},
        "adapters.bitrix24.deliver": {"POPUP_LIFETIME_S": 600.0},
        "adapters.amocrm.deliver": {"POPUP_LIFETIME_S": 600.0},
        "daemon.wiring.crm": {"CHECK_DEADLINE_S": LONG_S, "CONNECT_DEADLINE_S": LONG_S},
        "daemon.wiring.crm_admin": dict.fromkeys(("READ_DEADLINE_S", "WRITE_DEADLINE_S", "RESOLVE_DEADLINE_S"), LONG_S),
        "daemon.wiring.consent": {"EXCHANGE_DEADLINE_S": LONG_S},
        "daemon.delivery.dispatcher": {"REFRESH_DEADLINE_S": LONG_S},
    },
    "click": {"daemon.originate.service": {"SAME_CLICK_S": 600.0}},
    "question": {
        "daemon.lookup.service": {"BUDGET_S": LONG_S, "FLIGHT_DEADLINE_S": LONG_S},
        "daemon.doctor": {"FASTAGI_DEADLINE_S": LONG_S},
        "daemon.fastagi.server": {"ENV_DEADLINE_S": LONG_S, "ANSWER_DEADLINE_S": LONG_S},
        "daemon.wiring.elsewhere": {"REDIRECT_DEADLINE_S": LONG_S},
        "daemon.records.known": {"LIVE_DEADLINE_S": LONG_S},
    },
    "lease": {"daemon.store.leases": {"TTL_S": LONG_S}, "daemon.delivery.budgets": {"TTL_S": LONG_S}},
    "recording": {"daemon.recordings.look": {"WAIT_S": 600.0}, "daemon.recordings.service": dict.fromkeys(("FILE_DEADLINE_S", "LINKS_DEADLINE_S"), LONG_S)},
    "ticket": {"daemon.tickets.desk": {"SAME_LEGACY_S": 600.0}},
    "node": {},
}
EVERYTHING = frozenset(PATIENCE)


def have_patience(what: frozenset[str]) -> None:
    """Changes this process's constants; AttributeError when the daemon has one no longer."""
    for name in sorted(what):
        for module, constants in PATIENCE[name].items():
            loaded = import_module(module)
            for constant, value in constants.items():
                getattr(loaded, constant)
                setattr(loaded, constant, value)
    if "crm" in what:
        for adapter in import_module("adapters.registry").adapters().values():
            adapter.policy.deadline_s.update(dict.fromkeys(adapter.policy.deadline_s, LONG_S))
    if "click" in what:
        _default(import_module("daemon.originate.service").OriginateService, "answer_within_s", CLICK_S)
    if "node" in what:
        _default(import_module("daemon.nodes.asks").Asks, "taken_within_s", CLICK_S)


def _default(kind: Any, argument: str, value: float) -> None:
    """What `kind` is made with when nobody says otherwise."""
    defaults = kind.__init__.__kwdefaults__
    assert argument in defaults
    defaults[argument] = value


if __name__ == "__main__":
    have_patience(frozenset(os.environ[VARIABLE].split(",")))
    import_module("daemon.cli").main()
