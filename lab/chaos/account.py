"""The account of every call: made by the generator, kept by the daemon, told to the CRMs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.chaos.traffic import MadeCall

SLACK_S = 2.0  # a disturbance is felt a little before and after it


@dataclass(frozen=True, slots=True)
class Told:
    """What one CRM has: the customers' numbers of its journal, one per entry; and what it was told of each, oldest first."""

    journal: Sequence[str]
    story: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Account:
    """made: calls; kept: those the daemon has; unseen: those it could not see, as the line or itself was away; lost: those that it should have
    kept or told and did not; doubled: told or kept twice; disordered: told in a wrong order. wrong: what is wrong, in words."""

    made: int = 0
    kept: int = 0
    unseen: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.disordered)

    def add(self, other: Account) -> None:
        """Takes another account's numbers and words in."""
        for name in ("made", "kept", "unseen", "lost", "doubled", "disordered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong += other.wrong


ORDER = ("popup", "hangup", "journal")


def settle(
    made: Mapping[str, MadeCall],
    kept: Sequence[Mapping[str, Any]],
    told: Mapping[str, Told],
    blind: Sequence[tuple[float, float]],
    *,
    has_cdr: bool = False,
) -> Account:
    """`kept`: the daemon's records of external calls; `blind`: Unix times between which it may have seen nothing.

    A call that the daemon does not have is lost if it could be seen or a CDR tells of it, otherwise unseen. A call that it has must be
    in every CRM's journal once.
    """
    account = Account(made=len(made))
    records = Counter(str(call["customer_number"]) for call in kept)
    for phone, call in made.items():
        if not records[phone]:
            could_see = not any(since - SLACK_S <= (call.ended or call.began) and call.began <= until + SLACK_S for since, until in blind)
            if could_see or (has_cdr and call.ended is not None):
                account.lost += 1
                account.wrong.append(f"{phone} ({call.kind}, {call.heard} of {call.events} events heard) is not kept")
            else:
                account.unseen += 1
            continue
        account.kept += 1
        if records[phone] > 1:
            account.doubled += 1
            account.wrong.append(f"{phone} ({call.kind}) is kept {records[phone]} times")
    for name, crm in told.items():
        _compare(account, name, crm, made, records)
    return account


def _compare(account: Account, name: str, crm: Told, made: Mapping[str, MadeCall], records: Mapping[str, int]) -> None:
    entries = Counter(crm.journal)
    for phone in made:
        if records.get(phone) and not entries[phone]:
            account.lost += 1
            account.wrong.append(f"{phone} was not told to {name}")
        elif entries[phone] > 1:
            account.doubled += 1
            account.wrong.append(f"{phone} is in {name} {entries[phone]} times")
    for phone in entries.keys() - made.keys():
        account.doubled += 1
        account.wrong.append(f"{phone} in {name} was never made")
    for phone, story in crm.story.items():
        steps = [ORDER.index(step) for step in story]
        if steps != sorted(steps):
            account.disordered += 1
            account.wrong.append(f"{name} heard of {phone}: {', '.join(story)}")
