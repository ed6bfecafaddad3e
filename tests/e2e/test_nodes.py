"""Two daemons on one database, with one PBX and one CRM between them (docs/promises.md, Several daemons)."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from daemon.store.leases import TTL_S
from daemon.wiring.pbxs import LOOK_S
from lab.crm.retailcrm import RetailCrmSandbox
from lab.dialplan import ask
from lab.fakepbx import FakePbx
from lab.office import PHONES
from lab.patient import EVERYTHING
from lab.run import DaemonProcess, short_directory
from tests.conftest import fresh_database
from tests.e2e.conftest import GOLDEN, NUMBER, House

CALLS = f"/api/enterprises/{NUMBER}/calls"
TRACE = (GOLDEN / "inbound-answered/asterisk-22.ami").read_bytes()
CUT = TRACE.index(b"Event: HangupRequest")
FIRST = TRACE[TRACE.index(b"Uniqueid: ") + 10 :].split(b"\r\n", 1)[0].decode().rpartition(".")[0]
CUSTOMER = "+375296254070"
CHANNEL = "PJSIP/provider-0000001a"


@dataclass
class Pair:
    """`one` and `two` share everything; which of them reads the PBX is found out."""

    one: DaemonProcess
    two: DaemonProcess
    house: House
    paused: list[DaemonProcess] = field(default_factory=list)

    @property
    def pbx(self) -> FakePbx:
        return self.house.pbx

    @property
    def crm(self) -> RetailCrmSandbox:
        return self.house.crm

    def other(self, daemon: DaemonProcess) -> DaemonProcess:
        return self.two if daemon is self.one else self.one

    async def state(self, through: DaemonProcess) -> dict[str, Any]:
        async with through.client() as client:
            return dict((await client.get(f"/api/enterprises/{NUMBER}/status")).json())

    async def reader(self, through: DaemonProcess) -> DaemonProcess | None:
        """Who reads the PBX and is connected to it, as this one tells."""
        [pbx] = (await self.state(through))["pbxs"]
        return {"one": self.one, "two": self.two, None: None}[pbx["owner"]] if pbx["state"] == "ready" else None

    async def call(self, through: DaemonProcess) -> dict[str, Any] | None:
        """The newest call."""
        async with through.client() as client:
            found = (await client.get(CALLS, params={"limit": 1})).json()["items"]
        return found[0] if found else None

    def talk(self, start: str) -> None:
        """A customer comes and 150 answers."""
        self.pbx.channels = [f"{start}.0", f"{start}.1"]
        self.pbx.send(TRACE[:CUT].replace(FIRST.encode(), start.encode()))

    def hang_up(self, start: str) -> None:
        self.pbx.channels = []
        self.pbx.send(TRACE[CUT:].replace(FIRST.encode(), start.encode()))


async def until(what: str, condition: Callable[[], Any], within_s: float = 60.0) -> Any:
    """Waits for something true; an async condition too."""
    last: object = None
    try:
        async with asyncio.timeout(within_s):
            while True:
                last = condition()
                last = await last if asyncio.iscoroutine(last) else last
                if last:
                    return last
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what}: {last}") from None


@asynccontextmanager
async def pair(cluster: str, patience: frozenset[str]) -> AsyncIterator[Pair]:
    """`patience`: of both daemons."""
    async with fresh_database(cluster) as url:
        keys, token = secrets.token_hex(32), secrets.token_hex(16)
        crm, pbx = RetailCrmSandbox(codes=PHONES), FakePbx(devices={"PJSIP/150": "NOT_INUSE"})
        await crm.start()
        await pbx.start()
        daemons = [
            DaemonProcess(
                short_directory("vochid-node-"),
                admin_token=token,
                patience=patience,
                extra={"VOCHID_DATABASE_URL": url, "VOCHID_SECRET_KEYS": keys, "VOCHID_NODE": name},
            )
            for name in ("one", "two")
        ]
        built = Pair(*daemons, House(daemons[0], pbx, crm))
        try:
            await asyncio.gather(*(daemon.start() for daemon in daemons))
            document = built.house.document
            document["pbxs"][0]["allow_redirect"] = True
            document["integrations"]["retailcrm"]["user_extensions"] = {"19": "150"}
            await built.one.put(document)
            await until("a reader", lambda: built.reader(built.one))
            await until("the other knows", lambda: built.reader(built.two))
            yield built
        finally:
            for daemon in built.paused:
                assert daemon.process is not None
                os.kill(daemon.process.pid, signal.SIGCONT)
            await asyncio.gather(*(daemon.stop() for daemon in daemons))
            await pbx.stop()
            await crm.stop()


async def events_of(daemon: DaemonProcess, seen: list[tuple[str, dict[str, Any]]], opened: asyncio.Event) -> None:
    """Server-sent events, until it is cancelled or the stream ends."""
    async with daemon.client() as client, client.stream("GET", f"/api/enterprises/{NUMBER}/live", timeout=None) as stream:
        opened.set()
        topic = ""
        async for line in stream.aiter_lines():
            if line.startswith("event:"):
                topic = line[6:].strip()
            elif line.startswith("data:"):
                seen.append((topic, json.loads(line[5:])))


async def test_whatever_comes_to_one_daemon_is_done_by_the_one_that_reads_the_pbx_and_seen_on_both(cluster: str) -> None:
    async with pair(cluster, EVERYTHING) as p:
        owner = await p.reader(p.one)
        assert owner is not None
        far = p.other(owner)
        assert p.pbx.logins == 1
        seen: list[tuple[str, dict[str, Any]]] = []
        opened = asyncio.Event()
        watching = asyncio.ensure_future(events_of(far, seen, opened))
        async with far.client() as api:
            # A click on the daemon that does not read the PBX: one Originate, an answer in time, and the same one again.
            placed = await api.post(CALLS, json={"extension": "150", "phone": "+375296254071"})
            assert (placed.status_code, placed.json()["state"]) == (200, "sent"), placed.text
            again = await api.post(CALLS, json={"extension": "150", "phone": "+375296254071"})
            assert again.json()["request_id"] == placed.json()["request_id"]
            assert len(p.pbx.originates) == 1
            p.pbx.originate = "Extension does not exist."
            refused = await api.post(CALLS, json={"extension": "151", "phone": "+375296254072"})
            assert (refused.status_code, refused.json()["code"]) == (400, "pbx_refused")
            p.pbx.originate = "silent"
            waiting = asyncio.ensure_future(api.post(CALLS, json={"extension": "152", "phone": "+375296254073"}))
            await until("it was sent", lambda: len(p.pbx.originates) == 3)

            # The dialplan asks it: it knows the phones of the PBX that it does not read, and sends the call there.
            p.crm.managers.add(CUSTOMER, 19, "150", "Иван")
            await until("the phone is known to be free", lambda: asked(far, "found"))
            p.pbx.send(b"Event: DeviceStateChange\r\nDevice: PJSIP/150\r\nState: INUSE\r\n\r\n")
            await until("the phone is known to be busy", lambda: asked(far, "busy"))
            p.pbx.send(b"Event: DeviceStateChange\r\nDevice: PJSIP/150\r\nState: NOT_INUSE\r\n\r\n")
            await until("the phone is free again", lambda: asked(far, "found"))
            states = (await api.get(f"/api/enterprises/{NUMBER}/live/now")).json()["extensions"]
            assert {phone["number"]: phone["device"] for phone in states}["150"] == "free"
            p.pbx.send(f"Event: Newchannel\r\nChannel: {CHANNEL}\r\nUniqueid: 8.1\r\nLinkedid: 8.1\r\nChannelState: 4\r\n\r\n".encode())
            body = {"enterprise_number": NUMBER, "phone": CUSTOMER, "channel": CHANNEL}
            await until("the call is redirected", lambda: redirected(api, body))
            redirects = [frame for frame in p.pbx.heard if frame.get("Action") == "Redirect"]
            assert [(frame.get("Channel"), frame.get("Exten")) for frame in redirects] == [(CHANNEL, "150")]

            # Both speak with the CRM: its limits are divided.
            await until("both have a share of the account", lambda: divided(p))

            late = await waiting
            assert (late.status_code, late.json()["state"]) == (202, "unknown")

            # A board there shows the call.
            await asyncio.wait_for(opened.wait(), 30)
            p.talk("1800000001")
            await until("the board shows who talks", lambda: [one for topic, one in seen if topic == "call" and one["answered_by"] == "150"])
            health = (await api.get("/health")).json()
            assert [(pbx["state"], pbx["node"]) for pbx in health["pbxs"]] == [("ready", "one" if owner is p.one else "two")]
            assert sorted(node["node"] for node in health["nodes"]) == ["one", "two"]
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            assert "vochid_nodes 2.0" in (await client.get(f"http://{far.metrics}/metrics")).text

        # An orderly stop in the middle of the call: the other one reads at once, and the call goes on.
        before = await p.call(far)
        assert owner.process is not None
        owner.process.send_signal(signal.SIGTERM)
        await until("the other one reads", lambda: is_reader(p, far))
        assert "pbxs handed over" in owner.log.read_text(), "not run out"
        assert before is not None
        p.hang_up("1800000001")
        await until("the call is told", lambda: before["id"] in p.crm.journal)
        after = await p.call(far)
        assert after is not None
        assert (after["id"], after["result"], after["answered_by"]) == (before["id"], "answered", "150")
        assert len(p.crm.popups("in")) == 1
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def divided(p: Pair) -> bool:
    """Each asks its CRM about somebody new, and says which share of the account it has."""
    shares = []
    for daemon in (p.one, p.two):
        await ask(daemon.fastagi, NUMBER, f"+37529{time.monotonic_ns() % 10**7:07}", uniqueid=str(time.monotonic_ns()))
        async with daemon.client() as client:
            [connection] = (await client.get(f"/api/enterprises/{NUMBER}/connections")).json()["items"]
        shares.append(connection["share"])
    return min(shares) > 0.125 and sum(shares) <= 1.001


async def asked(daemon: DaemonProcess, status: str) -> bool:
    return (await ask(daemon.fastagi, NUMBER, CUSTOMER, uniqueid=str(time.monotonic_ns()))).variables["VOCHI_STATUS"] == status


async def redirected(api: httpx.AsyncClient, body: dict[str, Any]) -> bool:
    answer = await api.post("/api/smart-redirect", json=body)
    return answer.status_code == 200 and answer.json()["status"] == "found"


async def is_reader(p: Pair, daemon: DaemonProcess) -> bool:
    return await p.reader(daemon) is daemon


def test_a_dead_readers_lease_runs_out_and_is_taken_within_ten_seconds() -> None:
    """The login and the look at what lives take the rest: a moment on a machine that is not busy with other things."""
    assert TTL_S + LOOK_S + 1.0 < 10.0


async def test_a_stalled_or_killed_reader_is_replaced_and_writes_nothing_afterwards(cluster: str) -> None:
    async with pair(cluster, EVERYTHING - {"lease", "click", "node", "crm"}) as p:
        stalled = await p.reader(p.one)
        assert stalled is not None
        assert stalled.process is not None
        heir = p.other(stalled)
        p.talk("1800000002")
        talking = await until("somebody talks", lambda: answered(p, heir))
        await until("the CRM has confirmed it", lambda: confirmed(heir))

        # Stopped like a virtual machine that is moved: it does not know that it is late.
        p.paused.append(stalled)
        os.kill(stalled.process.pid, signal.SIGSTOP)
        async with heir.client() as api:
            gone = await api.post(CALLS, json={"extension": "150", "phone": "+375296254074"})
        assert (gone.status_code, gone.json()["code"]) == (503, "pbx_link_down"), "whoever reads it did not take it: nothing was dialled"
        assert p.pbx.originates == []
        await until("the other one reads", lambda: is_reader(p, heir))
        p.hang_up("1800000002")
        p.talk("1800000003")  # the stalled one hears all of this too, when it goes on
        p.hang_up("1800000003")
        ended = await until("both calls are told", lambda: told(p, heir, 2))

        os.kill(stalled.process.pid, signal.SIGCONT)
        p.paused.clear()
        await until("it has noticed", lambda: "lease lost" in stalled.log.read_text())
        await until("it has let go", lambda: len(p.pbx.connections) == 1)
        async with stalled.client() as api:
            await until("it is well again", lambda: is_well(api))
            assert (await api.get(CALLS)).json()["items"] == ended
        assert p.pbx.originates == []

        # kill -9 of the one that reads now: the first one takes over, a call goes on under its id.
        p.talk("1800000004")
        fourth = await until("somebody talks again", lambda: answered(p, stalled))
        await until("the CRM has confirmed it", lambda: confirmed(stalled))
        await heir.kill()
        await until("the first one reads again", lambda: is_reader(p, stalled))
        p.hang_up("1800000004")
        calls = await until("all calls are told", lambda: told(p, stalled, 3))
        assert [calls[0]["id"], calls[2]["id"]] == [fourth["id"], talking["id"]]
        assert sorted(p.crm.journal) == sorted(call["id"] for call in calls)
        assert [call["result"] for call in calls] == ["answered"] * 3
        assert len(p.crm.popups("in")) == 3


async def answered(p: Pair, through: DaemonProcess) -> dict[str, Any] | None:
    call = await p.call(through)
    return call if call is not None and call["answered_at"] and not call["ended_at"] else None


async def confirmed(through: DaemonProcess) -> bool:
    """Nothing is on its way to the CRM."""
    async with through.client() as client:
        found = (await client.get(f"/api/enterprises/{NUMBER}/deliveries")).json()["items"]
    return bool(found) and all(delivery["state"] not in ("waiting", "sending") for delivery in found)


async def told(p: Pair, through: DaemonProcess, count: int) -> list[dict[str, Any]] | None:
    """All calls, once so many have ended and stand in the journal."""
    async with through.client() as client:
        items: list[dict[str, Any]] = (await client.get(CALLS)).json()["items"]
    return items if len(items) == count == len(p.crm.journal) and all(call["ended_at"] for call in items) else None


async def is_well(api: httpx.AsyncClient) -> bool:
    return (await api.get("/health")).json().get("status") == "ok"
