"""The adapters there are, named explicitly."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.amocrm.deliver import AmoCrm
from adapters.base import Adapter
from adapters.bitrix24.deliver import Bitrix24
from adapters.retailcrm.deliver import RetailCrm
from adapters.tickets.deliver import Tickets


def adapters() -> Mapping[str, Adapter]:
    """All adapters by the name of their integration, in the order in which they are asked."""
    found: list[Adapter] = [RetailCrm(), Bitrix24(), AmoCrm(), Tickets()]
    return {adapter.name: adapter for adapter in found}
