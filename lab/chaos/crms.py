"""The four CRM sandboxes as chaos sees them: settings through a cable, and what they were told, by the customer's number."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, ClassVar

from lab.cable import Cable
from lab.chaos.account import Told
from lab.crm.amocrm import FAULTS as AMOCRM_FAULTS
from lab.crm.amocrm import AmoCrmSandbox
from lab.crm.bitrix24 import Bitrix24Sandbox
from lab.crm.bitrix24_data import FAULTS as BITRIX24_FAULTS
from lab.crm.retailcrm import FAULTS as RETAILCRM_FAULTS
from lab.crm.retailcrm import RetailCrmSandbox
from lab.crm.tickets import FAULTS as TICKETS_FAULTS
from lab.crm.tickets import TicketSandbox
from lab.office import PHONES

RESTS = (
    "402",
    "403",
    "blocked",
)  # amoCRM's: not paid, no rights, too many requests. Answered with minutes of silence: they have a place of their own in the row
_NUMBER = re.compile(r"37529\d{7}")  # a customer; lines begin with 37517


class Crm:
    """A CRM behind a cable. `faults`: every way in which its sandbox can fail to answer; `fail(fault, times)` has the next requests meet it.

    elsewhere: another address that its settings name for a while, where it `moves`.
    """

    name: ClassVar[str]
    faults: ClassVar[tuple[str, ...]]
    box: Any
    cable: Cable
    elsewhere: str | None = None
    moves: ClassVar[bool] = True

    async def start(self) -> None:
        url = await self.box.start()
        self.cable = Cable(int(url.rpartition(":")[2]))
        await self.cable.mend()

    async def stop(self) -> None:
        await self.cable.cut()
        await self.box.stop()

    def settings(self) -> dict[str, Any]:
        """What the enterprise's document says of it."""
        raise NotImplementedError

    def told(self) -> Told:
        """What it has."""
        raise NotImplementedError

    def fail(self, fault: str, times: int) -> None:
        self.box.switches.fail_next.extend([fault] * times)

    def is_calm(self) -> bool:
        """Whether all faults were met."""
        return not self.box.switches.fail_next

    @property
    def url(self) -> str:
        """Where the daemon finds it: before the cable."""
        return self.elsewhere or f"http://127.0.0.1:{self.cable.port}"

    def revoke(self) -> bool:
        """Takes other credentials from now on, which `settings` names; False where only a fault says so."""
        return False


class RetailCrm(Crm):
    """Tells the whole story of a call: popup, hangup, journal."""

    name = "retailcrm"
    faults = RETAILCRM_FAULTS

    def __init__(self) -> None:
        self.box = RetailCrmSandbox(codes=PHONES)

    def settings(self) -> dict[str, Any]:
        return {"domain": self.url, "api_key": self.box.api_key}

    def revoke(self) -> bool:
        self.box.api_key = secrets.token_hex(16)
        return True

    def popup_at(self, phone: str) -> float:
        """When the popup of a customer's call came, in Unix seconds; 0 as long as it did not."""
        return next((event.at for event in reversed(self.box.events) if event.data["type"] == "in" and event.data["phone"].endswith(phone[1:])), 0.0)

    def told(self) -> Told:
        story: dict[str, list[tuple[float, str]]] = {}
        for event in self.box.events:
            step = "hangup" if event.data["type"] == "hangup" else "popup"
            story.setdefault(_phone(event.data["phone"]), []).append((event.at, step))
        numbers = {external_id: _phone(call["phone"]) for external_id, call in self.box.journal.items()}
        for upload in self.box.uploads:
            for external_id in upload.data:
                story.setdefault(numbers.get(external_id, "?"), []).append((upload.at, "journal"))
        return Told(list(numbers.values()), {phone: [step for _, step in sorted(steps, key=lambda one: one[0])] for phone, steps in story.items()})


class Bitrix24(Crm):
    """Knows a call by what it answered when the call began."""

    name = "bitrix24"
    faults = (*(fault for fault in BITRIX24_FAULTS if fault != "batch-lost"), "502", "503")  # calls are told without batches

    def __init__(self) -> None:
        self.box = Bitrix24Sandbox()

    def settings(self) -> dict[str, Any]:
        return {**self.box.settings(), "webhook_url": f"{self.url}/rest/{self.box.webhook_user}/{self.box.webhook_code}/"}

    def told(self) -> Told:
        return Told([_phone(call.phone) for call in self.box.finished()])


class AmoCrm(Crm):
    """Numbers that nobody knows become incoming leads; here all are unknown."""

    name = "amocrm"
    moves = False  # its tokens are one host's
    faults = tuple(fault for fault in AMOCRM_FAULTS if fault not in RESTS)

    def __init__(self) -> None:
        self.box = AmoCrmSandbox()
        self._token = ""

    def settings(self) -> dict[str, Any]:
        self._token = self._token or self.box.oauth.long_lived()
        return {"base_url": self.url, "long_lived_token": self._token, "user_extensions": {"7031001": "150", "7031002": "151"}}

    def told(self) -> Told:
        kept = [note["params"] for note in self.box.account.calls()] + [item["metadata"] for item in self.box.account.unsorted.values()]
        return Told([_phone(json.dumps(item)) for item in kept])


class Tickets(Crm):
    """The other side of the ticket desk: every call is a ticket."""

    name = "tickets"
    faults = TICKETS_FAULTS

    def __init__(self) -> None:
        self.box = TicketSandbox("crm")

    def settings(self) -> dict[str, Any]:
        return {"role": "tma", "remote_url": self.url, "deploy_token": self.box.token, "rules": [{"do": "ticket"}]}

    def revoke(self) -> bool:
        self.box.token = secrets.token_hex(16)
        return True

    def told(self) -> Told:
        return Told([_phone(f"{text} {kept.ticket}") for kept in self.box.tickets.values() for text in [m["message"] for m in kept.messages]])


def _phone(text: str) -> str:
    found = _NUMBER.search(re.sub(r"[ ()\-]", "", text))
    return f"+{found[0]}" if found else text
