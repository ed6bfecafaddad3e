"""`make demo`: a real PBX, a CRM, the daemon, and calls between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lab.asterisk import LabUnavailable, ensure_root
from lab.crm.retailcrm import RetailCrmSandbox
from lab.fakepbx import FakePbx
from lab.office import LINES, PHONES, REPOSITORY, Office, free_port
from lab.record import stage
from lab.run import DaemonProcess, short_directory
from lab.scenarios import SCENARIOS, Stage

PROGRAMME = (
    "inbound-answered", "ring-group", "cyrillic-name", "inbound-cancelled", "queue-linear", "voicemail", "outbound-answered", "outbound-busy",
    "click-local-dial", "forwarded-to-mobile",
)  # fmt: skip
SETTLE_S = 3.0
console = Console(highlight=False, soft_wrap=True)


@dataclass
class Player:
    """Plays one scenario after the other, on a real PBX or from recordings."""

    document: dict[str, Any]
    stage: Stage | None = None
    fake: FakePbx | None = None

    async def play(self, name: str) -> None:
        if self.stage is not None:
            await SCENARIOS[name].play(self.stage)
        elif self.fake is not None:
            await self.fake.play(REPOSITORY / "tests/golden" / name / "asterisk-22.ami")


async def play_demo(*, once: bool, force_replay: bool) -> None:
    """The demo. `once`: stop when the last call is told; else stay until interrupted."""
    sandbox = RetailCrmSandbox(codes=PHONES)
    daemon = DaemonProcess(short_directory("vochid-demo-"), http=_preferred("127.0.0.1:8019"))
    try:
        async with _pbx(force_replay) as player:
            await sandbox.start()
            with console.status("starting the daemon and its PostgreSQL"):
                await daemon.start()
            integration = {"domain": sandbox.url, "api_key": sandbox.api_key}
            await daemon.put({**player.document, "integrations": {"retailcrm": integration}})
            console.print(f"the CRM's sandbox  [bold]{sandbox.url}/[/]")
            console.print(f"vochid's pages     [bold]{daemon.first_link}[/]  (opens once: choose a password)")
            console.print(f"vochid's API       [bold]http://{daemon.http}/api/enterprises/0367/calls[/]")
            console.print(f"  with the header  Authorization: Bearer {daemon.admin_token}\n")
            await _link_is_up(daemon)
            await _play_all(player, sandbox)
            await _tell_totals(daemon, sandbox)
            if not once:
                console.print("\nThe lab stays up: open the addresses above. Ctrl-C ends it.")
                await asyncio.Event().wait()
    except (asyncio.CancelledError, KeyboardInterrupt):
        console.print("\nending")
    finally:
        await daemon.stop()
        await sandbox.stop()


def _preferred(address: str) -> str:
    """The default address when it is free, else any."""
    host, _, port = address.partition(":")
    try:
        return f"{host}:{free_port(near=int(port))}"
    except OSError:
        return f"{host}:{free_port()}"


@asynccontextmanager
async def _pbx(force_replay: bool) -> AsyncIterator[Player]:
    try:
        if force_replay:
            raise LabUnavailable("asked to replay")
        root = await asyncio.to_thread(ensure_root, 22)
    except LabUnavailable as why:
        console.print(f"[yellow]no real PBX: {why}.[/]\n[yellow]Recorded calls of a real Asterisk 22 are played through a fake PBX instead.[/]\n")
        fake = FakePbx()
        await fake.start()
        try:
            yield Player(_recorded_document(fake), fake=fake)
        finally:
            await fake.stop()
        return
    with console.status("starting Asterisk 22 and its phones"):
        office = await Office.start(root)
    try:
        async with stage(office) as (on, _):
            yield Player(office.document(), stage=on)
    finally:
        await office.stop()


def _recorded_document(fake: FakePbx) -> dict[str, Any]:
    pbx = {
        "name": "main", "host": "127.0.0.1", "port": fake.port, "username": fake.username, "secret": fake.secret,
        "trunks": ["PJSIP/provider"], "internal_number": "^1\\d\\d$",
    }  # fmt: skip
    return {"number": "0367", "name": "Июнь", "pbxs": [pbx], "lines": [{"number": line} for line in LINES]}


async def _link_is_up(daemon: DaemonProcess) -> None:
    async with daemon.client() as client:
        for _ in range(100):
            pbxs = (await client.get("/health")).json().get("pbxs", [])
            if pbxs and all(pbx["state"] == "ready" for pbx in pbxs):
                return
            await asyncio.sleep(0.1)
    raise RuntimeError("vochid could not log in to the PBX")


async def _play_all(player: Player, sandbox: RetailCrmSandbox) -> None:
    shown = _Shown(sandbox)
    for name in PROGRAMME:
        console.print(f"[bold]{SCENARIOS[name].says}[/]")
        playing = asyncio.ensure_future(player.play(name))
        while not playing.done():
            await asyncio.wait({playing}, timeout=0.1)
            shown.show()
        await playing
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline and not shown.journal_grew:
            await asyncio.sleep(0.05)
            shown.show()
        shown.journal_grew = False
        console.print()


class _Shown:
    """Prints what the CRM received, each thing once."""

    def __init__(self, sandbox: RetailCrmSandbox) -> None:
        self._sandbox = sandbox
        self._events = self._journal = 0
        self.journal_grew = False

    def show(self) -> None:
        for item in self._sandbox.events[self._events :]:
            event = item.data
            what = {"in": "popup, incoming", "out": "popup, outgoing"}.get(event["type"], f"popup closes, {event.get('hangupStatus')}")
            console.print(f"  [cyan]CRM[/]  {what:28} {event['phone']}  ->  {', '.join(event['codes'])}")
        self._events = len(self._sandbox.events)
        for entry in list(self._sandbox.journal.values())[self._journal :]:
            self.journal_grew = True
            console.print(
                f"  [green]CRM[/]  journal, {entry['type']:3} {entry['result']:15} {entry['phone']}  manager {entry.get('code', '–')}, "
                f"waited {entry['durationWaiting']} s, talked {entry['duration']} s"
            )
        self._journal = len(self._sandbox.journal)


async def _tell_totals(daemon: DaemonProcess, sandbox: RetailCrmSandbox) -> None:
    async with daemon.client() as client:
        calls = (await client.get("/api/enterprises/0367/calls?limit=500")).json()["items"]
    external = [call for call in calls if call["direction"] != "internal"]
    missing = [call["id"] for call in external if call["id"] not in sandbox.journal]
    waits = _latencies(daemon.log)
    console.print(f"[bold]{len(external)} calls, {len(sandbox.journal)} journal entries, {len(missing)} missing, {sandbox.duplicates} doubled.[/]")
    if waits:
        console.print(f"From the commit to the CRM's answer: median {sorted(waits)[len(waits) // 2]:.1f} ms over {len(waits)} deliveries.")
    if missing or len(external) < len(PROGRAMME):
        raise RuntimeError(f"the CRM was not told everything: {len(external)} calls of {len(PROGRAMME)}, not told: {missing}")


def _latencies(log: Path) -> list[float]:
    found = []
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError):
            event = json.loads(line)
            if event["event"] == "delivery":
                found.append(event["waited_ms"] + event["duration_ms"])
    return found
