"""Two daemons, one desk in each role, a bad line between them, and kill -9 of either: afterwards both hold the same.

python -m lab.ticket_storm --messages 10000 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from lab.faults import FaultProxy
from lab.run import DaemonProcess, short_directory

NUMBER = "0367"
TICKETS = f"/api/enterprises/{NUMBER}/tickets"
TOKEN = "deploy-token-of-the-storm"
STATUSES = ("open", "in_progress", "closed")
WORKERS = 6
PER_TICKET = 20
SETTLE_DEADLINE_S = 900.0
DOWN_S = 0.3
HURRY_S = 2.0


@dataclass
class Report:
    """What came of it."""

    tickets: int = 0
    messages: int = 0
    kills: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


@dataclass
class Party:
    """One daemon in its role. `down`: it was killed and is not up again."""

    role: str
    daemon: DaemonProcess
    proxy: FaultProxy
    up: asyncio.Event = field(default_factory=asyncio.Event)
    said: int = 0

    async def set_up(self, remote: str) -> None:
        await self.daemon.put(
            {"number": NUMBER, "name": self.role, "pbxs": [], "integrations": {"tickets": {"role": self.role, "remote_url": remote, "deploy_token": TOKEN}}}
        )
        self.up.set()

    async def call(self, client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
        """Until it answers: what it may have done already is known by its idempotency key."""
        while True:
            await self.up.wait()
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.request(method, path, json=body)
                if answer.status_code < 500:
                    assert answer.status_code < 300, answer.text
                    return answer.json()
            await asyncio.sleep(0.1)


class Storm:
    """One run. `hurry(party)` lets time pass for what waits."""

    def __init__(
        self, parties: Sequence[Party], messages: int, seed: int, kills: int, hurry: Callable[[Party], Awaitable[None]], say: Callable[[str], None]
    ) -> None:  # fmt: skip
        self.tma, self.crm = parties
        self._messages = messages
        self._random = random.Random(seed)
        self._kills = kills
        self._hurry = hurry
        self._say = say
        self.report = Report()

    async def run(self) -> Report:
        started = time.monotonic()
        self.report.tickets = max(4, self._messages // PER_TICKET)
        killer = asyncio.create_task(self._kill())
        hurrier = asyncio.create_task(self._keep_hurrying())
        try:
            # Workers come back for the daemon that is up again; messages are told in the order in which their tickets' workers wrote them.
            await asyncio.gather(*(self._talk(party, worker) for party in (self.tma, self.crm) for worker in range(WORKERS)))
            await killer
            self._say(f"all written after {time.monotonic() - started:.0f} s")
            await self._settled()
            self._say(f"all told after {time.monotonic() - started:.0f} s")
            for party in (self.tma, self.crm):
                await party.proxy.quiet()
                self.report.faults += party.proxy.told
            self.report.differences = compare(await self._dump(self.tma), await self._dump(self.crm), self.report)
        finally:
            for task in (killer, hurrier):
                task.cancel()
            await asyncio.gather(killer, hurrier, return_exceptions=True)
        self.report.seconds = time.monotonic() - started
        return self.report

    async def _talk(self, party: Party, worker: int) -> None:
        """One worker's share: tma opens tickets too; either writes messages and now and then sets a status."""
        choice = random.Random(f"{self._random.random()} {party.role} {worker}")
        async with party.daemon.client() as client:
            own: list[int] = []
            if party is self.tma:
                for n in range(worker, self.report.tickets, WORKERS):
                    body = {"subject": f"ticket {n}", "message": f"first of {n}", "idempotency_key": f"t{n}"}
                    own.append((await party.call(client, "POST", TICKETS, body))["id"])
            for n in range(worker, self._messages // 2, WORKERS):
                while not own or (party is self.crm and n % 50 < WORKERS):
                    own = [t["id"] for t in (await party.call(client, "GET", f"{TICKETS}?limit=500"))["items"] if t["id"] % WORKERS == worker]
                    if own:
                        break
                    await asyncio.sleep(0.1)
                ticket = choice.choice(own)
                body = {"message": f"{party.role} {n}", "idempotency_key": f"m{n}"}
                await party.call(client, "POST", f"{TICKETS}/{ticket}/messages", body)
                party.said += 1
                if choice.random() < 0.1:
                    await party.call(client, "PUT", f"{TICKETS}/{ticket}/status", {"status": choice.choice(STATUSES)})

    async def _kill(self) -> None:
        """kill -9 of either in turn, spread over the run."""
        for n in range(self._kills):
            party, other = (self.tma, self.crm) if n % 2 else (self.crm, self.tma)
            wanted = self._messages * (n + 1) // (self._kills + 1)
            while party.said + other.said < wanted:  # noqa: ASYNC110 - the workers count, nobody tells
                await asyncio.sleep(0.02)
            party.up.clear()
            await party.daemon.kill()
            await asyncio.sleep(DOWN_S)
            await party.daemon.start()
            party.up.set()
            self.report.kills += 1
            self._say(f"{party.role} killed and up again at {party.said + other.said} of {self._messages} messages")

    async def _keep_hurrying(self) -> None:
        while True:
            await asyncio.sleep(0.4)
            for party in (self.tma, self.crm):
                # Towards a side that is down every try fails: hurried ones would open the breaker, which pauses for half a minute.
                if self.tma.up.is_set() and self.crm.up.is_set():
                    await self._hurry(party)

    async def _settled(self) -> None:
        """Nothing waits on either side, and nothing was given up."""
        until = time.monotonic() + SETTLE_DEADLINE_S
        for party in (self.tma, self.crm):
            async with party.daemon.client() as client:
                while any([(await self._states(party, client, state)) for state in ("waiting", "sending")]):
                    if time.monotonic() > until:
                        raise RuntimeError(f"{party.role} still has deliveries that wait")
                    await asyncio.sleep(0.3)
                if dead := await self._states(party, client, "dead"):
                    raise RuntimeError(f"{party.role} has dead letters: {dead[0]['last_error']}")

    async def _states(self, party: Party, client: httpx.AsyncClient, state: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await party.call(client, "GET", f"/api/enterprises/{NUMBER}/deliveries?state={state}&limit=1"))["items"]
        return found

    async def _dump(self, party: Party) -> dict[str, dict[str, Any]]:
        """Every ticket with its conversation, by external id."""
        found, cursor = {}, ""
        async with party.daemon.client() as client:
            while True:
                page = await party.call(client, "GET", f"{TICKETS}?limit=500{cursor}")
                for item in page["items"]:
                    found[item["external_ticket_id"]] = await party.call(client, "GET", f"{TICKETS}/{item['id']}")
                if page["next"] is None:
                    return found
                cursor = f"&cursor={page['next']}"


def compare(tma: dict[str, dict[str, Any]], crm: dict[str, dict[str, Any]], report: Report) -> list[str]:
    """What differs between the two sides, and what one of them has twice or not at all."""
    differences = [f"ticket {key} is on one side only" for key in tma.keys() ^ crm.keys()]
    seen: Counter[str] = Counter()
    for key in tma.keys() & crm.keys():
        one, other = tma[key], crm[key]
        for name in ("subject", "status"):
            if one[name] != other[name]:
                differences.append(f"ticket {key}: {name} {one[name]!r} and {other[name]!r}")
        mine, theirs = ([(m["sender"], m["external_message_id"], m["message"]) for m in side["messages"]] for side in (one, other))
        if mine != theirs:
            differences.append(f"ticket {key}: the conversations differ: {mine[:50]} and {theirs[:50]}")
        if [m["id"] for m in one["messages"][1:] if m["sender"] == "tma" and not m["remote_id"]]:
            differences.append(f"ticket {key}: the other side's ids are missing")
        seen.update(text for _, _, text in mine)
    report.messages = sum(seen.values())
    return differences + [f"{text!r} is there {count} times" for text, count in seen.items() if count > 1]


async def stage(left: DaemonProcess, right: DaemonProcess, seed: int, run: Callable[[list[Party]], Awaitable[Report]]) -> Report:
    """Starts the daemons and the line between them, and stops all of it afterwards."""
    to_tma, to_crm = FaultProxy(f"http://{left.http}", seed), FaultProxy(f"http://{right.http}", seed + 1)
    parties = [Party("tma", left, to_tma), Party("crm", right, to_crm)]
    try:
        await asyncio.gather(left.start(), right.start())
        await asyncio.gather(to_tma.start(), to_crm.start())
        await parties[0].set_up(to_crm.url)
        await parties[1].set_up(to_tma.url)
        return await run(parties)
    finally:
        await asyncio.gather(left.stop(), right.stop())
        await asyncio.gather(to_tma.stop(), to_crm.stop())


def main() -> int:
    """The whole run from the command line; exit 1 when the sides differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kills", type=int, default=6)
    chosen = parser.parse_args()

    async def hurry(party: Party) -> None:
        """A person who presses retry: on a line as bad as this the steps between tries soon last hours."""
        async with party.daemon.client() as client:
            with contextlib.suppress(httpx.HTTPError):
                await client.post(f"/api/enterprises/{NUMBER}/deliveries/retry", json={"state": "waiting"})
        await asyncio.sleep(HURRY_S)

    async def run(parties: list[Party]) -> Report:
        return await Storm(parties, chosen.messages, chosen.seed, chosen.kills, hurry, lambda text: print(text, file=sys.stderr, flush=True)).run()

    tma, crm = (DaemonProcess(short_directory("vochid-storm-")) for _ in range(2))
    report = asyncio.run(stage(tma, crm, chosen.seed, run))
    print(f"{report.tickets} tickets, {report.messages} messages, {report.kills} kills, {report.seconds:.0f} s; the line: {dict(report.faults)}")
    print("\n".join(report.differences[:20]) or "both sides hold the same")
    return 1 if report.differences or report.messages != report.tickets + chosen.messages // 2 * 2 else 0


if __name__ == "__main__":
    sys.exit(main())
