"""`make demo`: a real PBX, a CRM, the daemon, and calls between them. What is played stands in demo_steps.py."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rich.console import Console

from lab.asterisk import LabUnavailable, ensure_root
from lab.crm.retailcrm import RetailCrmSandbox
from lab.demo_steps import Demo, Player, play_all
from lab.fakepbx import FakePbx
from lab.office import LINES, PHONES, Office, free_port
from lab.record import stage
from lab.run import DaemonProcess, short_directory
from lab.stage import GROUP, ONE_PHONE, Stage

QUIET_S = 12.0  # between two customers, once the demo has been played
console = Console(highlight=False, soft_wrap=True)


async def play_demo(*, once: bool, force_replay: bool) -> bool:
    """The demo; gives whether every step was well. `once`: stop when all is played; else stay until interrupted."""
    sandbox = RetailCrmSandbox(codes=PHONES)
    well = True
    try:
        async with _pbx(force_replay) as (player, fastagi):
            daemon = DaemonProcess(short_directory("vochid-demo-"), http=os.environ.get("VOCHID_HTTP") or _preferred("127.0.0.1:8019"), fastagi=fastagi)
            try:
                await sandbox.start()
                with console.status("starting the daemon and its PostgreSQL"):
                    await daemon.start()
                await _set_up(daemon, sandbox, player)
                demo = Demo(player, sandbox, daemon, console)
                showing = asyncio.ensure_future(demo.show_forever())
                try:
                    well = await play_all(demo)
                    if not once:
                        await _stay(player, sandbox)
                finally:
                    showing.cancel()
            finally:
                await daemon.stop()
                await sandbox.stop()
    except (asyncio.CancelledError, KeyboardInterrupt):
        console.print("\nending")
    return well


async def _set_up(daemon: DaemonProcess, sandbox: RetailCrmSandbox, player: Player) -> None:
    """Stores the enterprise, makes vochid the account's telephony, says where everything is, and waits for the PBX."""
    managers = dict(zip((str(user.id) for user in sandbox.account.users.values() if user.active), PHONES, strict=False))
    integration = {"domain": sandbox.url, "api_key": sandbox.api_key, "user_extensions": managers}
    await daemon.put({**player.document, "integrations": {"retailcrm": integration}})
    async with daemon.client() as client:
        done = (await client.post("/api/enterprises/0367/integrations/retailcrm/register")).json()
    if not done["ok"]:
        raise RuntimeError(f"the CRM's sandbox did not take the registration: {done['detail']}")
    console.print(f"the CRM's sandbox  [bold]{sandbox.url}/[/]")
    console.print(f"vochid's pages     [bold]{daemon.first_link}[/]  (opens once: choose a password)")
    console.print(f"vochid's API       [bold]http://{daemon.http}/api/enterprises/0367/calls[/]")
    console.print(f"  with the header  Authorization: Bearer {daemon.admin_token}\n")
    async with daemon.client() as client:
        for _ in range(600):
            pbxs = (await client.get("/health")).json().get("pbxs", [])
            if pbxs and all(pbx["state"] == "ready" for pbx in pbxs):
                return
            await asyncio.sleep(0.1)
    raise RuntimeError("vochid could not log in to the PBX")


def _preferred(address: str) -> str:
    """The default address when it is free, else any."""
    host, _, port = address.partition(":")
    try:
        return f"{host}:{free_port(near=int(port))}"
    except OSError:
        return f"{host}:{free_port()}"


@asynccontextmanager
async def _pbx(force_replay: bool) -> AsyncIterator[tuple[Player, str]]:
    """A real PBX or a fake one, and where it asks over FastAGI."""
    try:
        if force_replay:
            raise LabUnavailable("asked to replay")
        root = await asyncio.to_thread(ensure_root, 22)
    except LabUnavailable as why:
        console.print(f"[yellow]no real PBX: {why}.[/]\n[yellow]Recorded calls of a real Asterisk 22 are played through a fake PBX instead.[/]")
        console.print("[yellow]No phone rings: a click is followed as far as the PBX, smart redirect is asked over HTTP.[/]\n")
        fake = FakePbx(devices={f"PJSIP/{phone}": "NOT_INUSE" for phone in PHONES})
        await fake.start()
        try:
            yield Player(_recorded_document(fake), fake=fake), f"127.0.0.1:{free_port()}"
        finally:
            await fake.stop()
        return
    with console.status("starting Asterisk 22 and its phones"):
        office = await Office.start(root)
    try:
        async with stage(office) as (on, _):
            yield Player(office.document(), stage=on), f"127.0.0.1:{office.ports.fastagi}"
    finally:
        await office.stop()


def _recorded_document(fake: FakePbx) -> dict[str, Any]:
    pbx = {
        "name": "main", "host": "127.0.0.1", "port": fake.port, "username": fake.username, "secret": fake.secret,
        "trunks": ["PJSIP/provider"], "internal_number": "^1\\d\\d$",
    }  # fmt: skip
    phones = [{"number": phone} for phone in PHONES]
    return {"number": "0367", "name": "Июнь", "pbxs": [pbx], "lines": [{"number": line} for line in LINES], "internal_phones": phones}


async def _stay(player: Player, sandbox: RetailCrmSandbox) -> None:
    """Keeps everything up until it is interrupted; on a real PBX customers go on calling, and phones answer by themselves."""
    console.print("\nThe lab stays up: open the addresses above. Ctrl-C ends it.")
    if player.stage is None:
        await asyncio.Event().wait()
    else:
        console.print("Click [bold]Call[/] in the sandbox's page: the manager's phone answers by itself, then the customer's does.\n")
        await _customers_call(player.stage, [customer.phone for customer in sandbox.account.customers.values()])


async def _customers_call(on: Stage, customers: list[str]) -> None:
    for number in (*PHONES, *customers):
        await on.phones.behave(number, "answer", delay_s=1.5, talk_s=20)
    for line, caller in zip(itertools.cycle((ONE_PHONE, GROUP)), itertools.cycle(customers), strict=False):
        call = await on.phones.call(line, caller=caller)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(call.ended.wait(), QUIET_S)
        if not call.ended.is_set():
            await call.hangup()
        await asyncio.sleep(QUIET_S)
