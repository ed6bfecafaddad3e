"""The lab office as the call model sees it."""

from __future__ import annotations

from daemon.calls.view import PbxView
from lab.office import LINES, MOBILES, PHONES, TRUNKS

VIEW = PbxView(
    enterprise="0367",
    pbx="main",
    country="BY",
    trunks=TRUNKS,
    inbound_contexts=frozenset({"from-trunk"}),
    internal_context="inoffice",
    internal_number=r"^1\d\d$",
    internal_phones=frozenset(PHONES),
    lines=tuple(LINES),
    employee_mobiles=frozenset(MOBILES),
)
