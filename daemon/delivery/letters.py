"""Which deliveries a person asks for, and which failures have the same cause. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Numbers, ids and quoted words tell failures of one cause apart: they are left out of it.
CAUSE = r"regexp_replace(regexp_replace(coalesce(last_error, ''), '\+?[0-9][0-9a-f-]{5,}|[0-9]{4,}', '…', 'g'), '[[:space:]]+', ' ', 'g')"


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """What is asked for; None: anything. `cause` is one that the list of causes gave."""

    state: str | None = None
    integration: str | None = None
    kind: str | None = None
    call: str | None = None
    record: str | None = None
    cause: str | None = None
    ids: Sequence[int] | None = None

    def conditions(self, enterprise: str) -> tuple[list[str], list[Any]]:
        """Conditions on `deliveries` and their arguments, numbered from $1."""
        where, arguments = ["enterprise_number = $1"], [enterprise]
        asked = {
            "state = {}": self.state, "integration = {}": self.integration, "kind = {}": self.kind, "call_id = {}::text::uuid": self.call,
            "record = {}": self.record,
            CAUSE.replace("{", "{{").replace("}", "}}") + " = {}": self.cause, "id = any ({}::bigint[])": self.ids,
        }  # fmt: skip
        for condition, value in asked.items():
            if value is not None:
                arguments.append(value)  # type: ignore[arg-type]
                where.append(condition.format(f"${len(arguments)}"))
        return where, arguments
