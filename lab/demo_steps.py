"""What the demo plays, step by step, and how each step is known to be well."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

from lab.crm.retailcrm import RetailCrmSandbox
from lab.fakepbx import FakePbx
from lab.office import REPOSITORY
from lab.run import DaemonProcess
from lab.scenarios import SCENARIOS
from lab.stage import CUSTOMER, ONE_PHONE, Stage

PROGRAMME = (
    "inbound-answered", "ring-group", "cyrillic-name", "inbound-cancelled", "queue-linear", "voicemail", "outbound-answered", "outbound-busy",
    "forwarded-to-mobile",
)  # fmt: skip
WHILE_THE_CRM_IS_GONE = "inbound-manager-hangs-up"  # what is replayed then
REDIRECTED_LINE, REDIRECTED_FROM = "+375171112248", "152"
MANAGER, MANAGERS_PHONE = 19, "150"  # looks after CUSTOMER in the sandbox's account
STRANGER = "+375297770011"
ENTERPRISE = "/api/enterprises/0367"
DEADLINE_S = 45.0


@dataclass
class Player:
    """Plays scenarios, on a real PBX or from recordings."""

    document: dict[str, Any]
    stage: Stage | None = None
    fake: FakePbx | None = None

    async def play(self, name: str) -> None:
        if self.stage is not None:
            await SCENARIOS[name].play(self.stage)
        elif self.fake is not None:
            await self.fake.play(REPOSITORY / "tests/golden" / name / "asterisk-22.ami")


@dataclass
class Demo:
    """Everything that runs, and what was printed of it."""

    player: Player
    sandbox: RetailCrmSandbox
    daemon: DaemonProcess
    console: Console
    failed: int = 0
    _seen: set[str] = field(default_factory=set)
    _events: int = 0
    _journal: int = 0

    def tell(self, well: bool, what: str) -> None:
        """One line: ok or FAIL, and what."""
        self.show()
        self.failed += not well
        self.console.print(f"{'[green]ok  [/]' if well else '[red]FAIL[/]'}  {escape(what)}")

    async def step(self, what: str, play: Callable[[], Awaitable[str]]) -> None:
        """Plays one step; `play` gives what is wrong, or nothing."""
        try:
            wrong = await play()
        except (TimeoutError, RuntimeError, httpx.HTTPError) as error:
            wrong = f"{type(error).__name__} {error}".strip()
        self.tell(not wrong, f"{what}  {wrong}".rstrip())

    async def get(self, path: str) -> Any:
        """What the API answers."""
        async with self.daemon.client() as client:
            return (await client.get(ENTERPRISE + path)).json()

    async def calls(self) -> list[dict[str, Any]]:
        """Calls that CRMs are told of, the oldest first."""
        found: list[dict[str, Any]] = (await self.get("/calls?limit=500"))["items"]
        return sorted((call for call in found if call["direction"] != "internal"), key=lambda call: str(call["started_at"]))

    async def new_calls(self, count: int) -> list[dict[str, Any]]:
        """Waits for `count` ended calls that were not given before; what is there when the deadline passes."""
        fresh: list[dict[str, Any]] = []

        async def are_there() -> bool:
            nonlocal fresh
            fresh = [call for call in await self.calls() if call["id"] not in self._seen]
            return len(fresh) >= count and all(call["ended_at"] for call in fresh)

        with contextlib.suppress(TimeoutError):
            await until(are_there)
        self._seen |= {call["id"] for call in fresh}
        return fresh

    async def untold(self) -> list[str]:
        """Calls that are not in the CRM's journal, once it has been waited for them."""
        missing: list[str] = []

        async def is_told() -> bool:
            nonlocal missing
            missing = [call["id"] for call in await self.calls() if call["id"] not in self.sandbox.journal]
            return not missing

        with contextlib.suppress(TimeoutError):
            await until(is_told)
        return missing

    async def show_forever(self) -> None:
        """Prints what the CRM received as it comes."""
        while True:
            self.show()
            await asyncio.sleep(0.1)

    def show(self) -> None:
        """Prints what the CRM received since the last time."""
        for item in self.sandbox.events[self._events :]:
            event = item.data
            what = {"in": "popup, incoming", "out": "popup, outgoing"}.get(event["type"], f"popup closes, {event.get('hangupStatus')}")
            self.console.print(f"      [cyan]CRM[/]  {what:28} {event['phone']}  ->  {', '.join(event['codes'])}")
        self._events = len(self.sandbox.events)
        for entry in list(self.sandbox.journal.values())[self._journal :]:
            self.console.print(
                f"      [green]CRM[/]  journal, {entry['type']:3} {entry['result']:15} {entry['phone']}  manager {entry.get('code', '–')}, "
                f"waited {entry['durationWaiting']} s, talked {entry['duration']} s"
            )
        self._journal = len(self.sandbox.journal)


async def until(what: Callable[[], Awaitable[bool]], timeout_s: float = DEADLINE_S) -> None:
    """Waits for a condition; TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while True:
            if await what():
                return
            await asyncio.sleep(0.05)


async def play_all(demo: Demo) -> bool:
    """Every step; gives whether all went well."""
    for name in PROGRAMME:
        await demo.step(SCENARIOS[name].says, lambda name=name: _as_the_phones_saw_it(demo, name))  # type: ignore[misc]
    live = demo.player.stage is not None
    await demo.step(f"{CUSTOMER} is known and calls: smart redirect gives the call to {MANAGERS_PHONE}, who looks after them.", lambda: _redirected(demo))
    await demo.step("The CRM is stopped: calls still get through.", lambda: _without_crm(demo))
    await demo.step("The CRM is back: it is told what it missed.", lambda: _told_afterwards(demo))
    end = "is connected with the customer" if live else "gets an Originate through the PBX"
    await demo.step(f"A click on {CUSTOMER} in the CRM: {MANAGERS_PHONE} {end}.", lambda: _clicked(demo))
    await _totals(demo)
    return demo.failed == 0


async def _as_the_phones_saw_it(demo: Demo, name: str) -> str:
    """Plays a scenario and compares its records with what its phones lived through."""
    await demo.player.play(name)
    expected = [record for record in SCENARIOS[name].expect if record["direction"] != "internal"]
    calls = await demo.new_calls(len(expected))
    if len(calls) != len(expected):
        return f"{len(calls)} calls instead of {len(expected)}"
    return "; ".join(
        f"{key} is {call[key]!r} instead of {value!r}"
        for call, record in zip(calls, expected, strict=True)
        for key, value in record.items()
        if call[key] != value
    )


async def _redirected(demo: Demo) -> str:
    async def manager_is_free() -> bool:
        async with demo.daemon.client() as client:
            answer = await client.post("/api/smart-redirect", json={"enterprise_number": "0367", "phone": CUSTOMER})
            return bool(answer.json().get("extension") == MANAGERS_PHONE)

    await until(manager_is_free)
    if demo.player.stage is None:
        return ""
    await demo.player.stage.phones.behave(REDIRECTED_FROM, "ring")
    await demo.player.stage.phones.behave(MANAGERS_PHONE, "answer")
    await _answered_call(demo.player.stage, REDIRECTED_LINE, CUSTOMER)
    return _answered_by(await demo.new_calls(1), [MANAGERS_PHONE])


async def _without_crm(demo: Demo) -> str:
    """Two calls, one of which would ask the CRM whose it is; the daemon has tried to tell of them before this is over."""
    await demo.sandbox.stop()
    if demo.player.stage is None:
        await demo.player.play(WHILE_THE_CRM_IS_GONE)
        wrong = _answered_by(await demo.new_calls(1), ["150"])
    else:
        await demo.player.stage.phones.behave(REDIRECTED_FROM, "answer")
        await asyncio.gather(_answered_call(demo.player.stage, REDIRECTED_LINE, STRANGER), _answered_call(demo.player.stage, ONE_PHONE, CUSTOMER))
        wrong = _answered_by(await demo.new_calls(2), ["150", REDIRECTED_FROM])

    async def was_tried() -> bool:
        waiting = (await demo.get("/deliveries?state=waiting&limit=100"))["items"]
        return any(item["kind"] == "journal" and item["attempts"] > 0 for item in waiting)

    await until(was_tried)
    return wrong


async def _told_afterwards(demo: Demo) -> str:
    await demo.sandbox.start(httpx.URL(demo.sandbox.url).port or 0)
    missing = await demo.untold()
    return f"not told: {', '.join(missing)}" if missing else ""


async def _clicked(demo: Demo) -> str:
    """The button of the sandbox's page, pressed by the page's own request."""
    if demo.player.stage is not None:
        await demo.player.stage.phones.behave(MANAGERS_PHONE, "answer", delay_s=0.6)
        await demo.player.stage.phones.behave(CUSTOMER, "answer", delay_s=0.6, talk_s=1.5)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as browser:
        note = (await browser.post(f"{demo.sandbox.url}/-/call", data={"user": str(MANAGER), "phone": CUSTOMER})).json()
    if note["status"] != 200:
        return f"the telephony answered {note['status']}: {note['answer']}"
    if demo.player.fake is not None:
        originates = [(frame.get("Channel"), frame.get("Exten")) for frame in demo.player.fake.originates]
        return "" if originates == [(f"Local/{MANAGERS_PHONE}@inoffice", CUSTOMER)] else f"the PBX was asked {originates}"
    calls = await demo.new_calls(1)
    if [(call["click_to_call"], call["initiator"]) for call in calls] != [(True, MANAGERS_PHONE)]:
        return f"no click-to-call of {MANAGERS_PHONE} among {[call['id'] for call in calls]}"
    return _answered_by(calls, [MANAGERS_PHONE])


async def _answered_call(on: Stage, line: str, caller: str) -> None:
    call = await on.phones.call(line, caller=caller)
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(1.0)
    await call.hangup()


def _answered_by(calls: list[dict[str, Any]], expected: list[str]) -> str:
    answered = sorted(str(call["answered_by"]) for call in calls)
    return "" if answered == expected else f"answered by {answered or 'nobody'} instead of {expected}"


async def _totals(demo: Demo) -> None:
    """The figures; a call that is missing from the CRM's journal, stands there twice, or was refused is a failure."""
    missing = await demo.untold()
    calls, box = await demo.calls(), demo.sandbox
    well = not missing and not box.duplicates and not box.refusals and len(box.journal) == len(calls)
    demo.tell(well, f"{len(calls)} calls, {len(box.journal)} journal entries, {len(missing)} missing, {box.duplicates} doubled.")
    for refusal in box.refusals:
        demo.console.print(f"      refused by the CRM: {escape(refusal)}")
    if waits := _latencies(demo.daemon.log):
        demo.console.print(f"      From the commit to the CRM's answer: median {sorted(waits)[len(waits) // 2]:.1f} ms over {len(waits)} deliveries.")


def _latencies(log: Path) -> list[float]:
    found = []
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError):
            event = json.loads(line)
            if event["event"] == "delivery":
                found.append(event["waited_ms"] + event["duration_ms"])
    return found
