"""A link against a PBX that can only remember: logins, losses, silence, and handlers that fail."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon.ami import link as link_module
from daemon.ami.actions import CoreShowChannels, CoreStatus, Ping
from daemon.ami.fleet import Fleet
from daemon.ami.link import ActionTimeout, Link, LinkDown, LinkState, LinkStatus, LinkTarget
from daemon.ami.pace import BURST_S, SHARE
from daemon.ami.reconnect import lost_delay_s, refused_delay_s
from daemon.ami.session import RefusedFor
from daemon.ami.wire import Frame, Skipped
from daemon.supervisor import Supervisor
from lab.fakepbx import FakePbx
from lab.fleet import self_signed
from tests.patience import PATIENCE_S
from tests.rig import WITHIN_S

GOLDEN = Path(__file__).parent.parent / "golden"


class Handler:
    def __init__(self) -> None:
        self.events: list[Frame] = []
        self.skipped: list[Skipped] = []
        self.downs: list[str] = []
        self.ready = asyncio.Event()
        self.fails = False
        self.takes_s = 0.0

    def on_ready(self, link: Link) -> None:
        self.ready.set()

    def on_event(self, frame: Frame, at: float) -> None:
        self.events.append(frame)
        if self.takes_s:
            time.sleep(self.takes_s)
        if self.fails:
            raise RuntimeError("a bug in a handler")

    def on_unseen(self, skipped: Skipped) -> None:
        self.skipped.append(skipped)

    def on_down(self, reason: str) -> None:
        self.downs.append(reason)


@asynccontextmanager
async def linked(pbx: FakePbx, *, secret: str | None = None, wait: bool = True) -> AsyncIterator[tuple[Link, Handler]]:
    await pbx.start()
    handler, supervisor = Handler(), Supervisor("test")
    link = Link("t", LinkTarget("127.0.0.1", pbx.port, pbx.username, secret or pbx.secret), handler, asyncio.Semaphore(1))
    supervisor.serve("link", link.run)
    try:
        if wait:
            await asyncio.wait_for(handler.ready.wait(), WITHIN_S)
        yield link, handler
    finally:
        await supervisor.stop()
        await pbx.stop()


async def until(condition: object) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_it_logs_in_asks_and_hears() -> None:
    pbx = FakePbx(channels=["1.1", "1.2"])
    async with linked(pbx) as (link, handler):
        assert (await link.request(CoreStatus())).response.get("CoreStartupDate") == "2026-11-21"
        assert len((await link.request(CoreShowChannels())).items) == 2
        await pbx.play(GOLDEN / "inbound-answered/asterisk-22.ami", speed=100)
        await until(lambda: any(frame.event == "Hangup" for frame in handler.events))


async def test_a_pbx_without_md5_is_logged_in_to_plainly() -> None:
    async with linked(FakePbx(md5=False)) as (link, _):
        assert link.is_ready


async def test_a_handler_that_raises_never_closes_the_link() -> None:
    pbx = FakePbx()
    async with linked(pbx) as (link, handler):
        handler.fails = True
        pbx.send(b"Event: A\r\n\r\nEvent: B\r\n\r\n")
        await until(lambda: len(handler.events) == 2)
        assert link.is_ready
        assert (await link.request(Ping())).ok


async def test_a_wrong_secret_is_a_state_with_a_slow_lane() -> None:
    pbx = FakePbx()
    async with linked(pbx, secret="wrong", wait=False) as (link, _):
        await until(lambda: link.status.state is LinkState.REFUSED)
        await asyncio.sleep(1.5)
        assert pbx.logins == 1
        assert link.status.reason == "Authentication failed"


async def test_a_login_already_in_use_is_another_state() -> None:
    async with linked(FakePbx(login="in_use"), wait=False) as (link, _):
        await until(lambda: link.status.state is LinkState.IN_USE)


async def test_a_reset_is_reconnected_and_what_was_in_flight_fails_without_being_sent_again() -> None:
    pbx = FakePbx()
    async with linked(pbx) as (link, handler):
        pbx.answers = False
        waiting = asyncio.ensure_future(link.request(CoreStatus()))
        await until(lambda: sum(f.get("Action") == "CoreStatus" for f in pbx.heard) == 1)
        pbx.answers = True
        handler.ready.clear()
        pbx.drop()
        with pytest.raises(LinkDown):
            await waiting
        await asyncio.wait_for(handler.ready.wait(), WITHIN_S)
        assert handler.downs
        assert sum(f.get("Action") == "CoreStatus" for f in pbx.heard) == 1


async def test_a_request_without_a_connection_fails_at_once() -> None:
    link = Link("t", LinkTarget("127.0.0.1", 1, "u", "s"), Handler(), asyncio.Semaphore(1))
    with pytest.raises(LinkDown, match="not connected"):
        await link.request(Ping())


async def test_an_answer_that_does_not_come_times_out() -> None:
    pbx = FakePbx()
    async with linked(pbx) as (link, _):
        pbx.answers = False
        with pytest.raises(ActionTimeout):
            await link.request(Ping(), deadline_s=0.5)


async def test_a_silent_peer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.ami.session.PING_AFTER_S", 0.2)
    monkeypatch.setattr("daemon.ami.session.PONG_DEADLINE_S", 0.2)
    pbx = FakePbx()
    async with linked(pbx) as (_, handler):
        pbx.answers = False
        await until(lambda: handler.downs)
        assert "silent" in handler.downs[0]


async def test_garbage_and_a_huge_frame_are_survived() -> None:
    pbx = FakePbx()
    async with linked(pbx) as (link, handler):
        pbx.send(b"\xff\xfe\x00 garbage\r\n\r\n" + b"Event: Huge\r\nX: " + b"x" * 10_000_000 + b"\r\n\r\nEvent: After\r\n\r\n")
        await until(lambda: any(frame.event == "After" for frame in handler.events))
        assert {skipped.reason for skipped in handler.skipped} >= {"oversize"}
        assert link.is_ready


async def test_a_pbx_that_floods_is_heard_a_piece_per_turn_of_the_loop_and_wholly_and_in_order() -> None:
    pbx, count = FakePbx(), 30_000
    async with linked(pbx) as (_, handler):
        flood = b"".join(b"Event: Flood\r\nN: %d\r\n\r\n" % n for n in range(count))
        most, before, turns = 0, 0, 0
        pbx.send(flood)
        async with asyncio.timeout(PATIENCE_S):
            while len(handler.events) < count:
                most, before = max(most, len(handler.events) - before), len(handler.events)
                turns += 1
                await asyncio.sleep(0)
        assert [frame.get("N") for frame in handler.events] == [str(n) for n in range(count)]
        assert turns >= len(flood) // link_module.TURN_BYTES - 1
        assert most <= 2 * link_module.TURN_BYTES // len(b"Event: Flood\r\nN: 0\r\n\r\n")


async def test_a_pbx_that_floods_leaves_the_loop_to_the_others_and_is_heard_all_the_same() -> None:
    pbx, stop = FakePbx(), asyncio.Event()

    async def flood() -> None:
        while not stop.is_set():
            pbx.send((b"Event: Flood\r\nN: " + b"1" * 1_000 + b"\r\n\r\n") * 100)
            for writer in list(pbx.connections):
                await writer.drain()
            await asyncio.sleep(0)

    async with linked(pbx) as (link, handler):
        handler.takes_s = 0.0005
        flooding = asyncio.create_task(flood())
        await until(lambda: len(handler.events) * handler.takes_s > 2 * BURST_S)
        began, before = time.monotonic(), len(handler.events)
        await until(lambda: len(handler.events) > before + 200)
        worked_s = (len(handler.events) - before) * handler.takes_s
        assert worked_s < 2 * SHARE * (time.monotonic() - began) + BURST_S / 10
        stop.set()
        pbx.drop()
        await flooding
        assert link.status.failures <= 1


async def test_what_had_arrived_before_the_connection_was_lost_is_still_heard() -> None:
    pbx = FakePbx()
    async with linked(pbx) as (_, handler):
        flood = b"Event: Flood\r\n\r\n" * 5_000
        pbx.send(flood + b"Event: Last\r\n\r\n")
        async with asyncio.timeout(WITHIN_S):
            for writer in list(pbx._writers):
                await writer.drain()
                writer.close()
        await until(lambda: handler.downs)
        assert handler.events[-1].event == "Last"


async def test_stopping_while_a_reconnect_is_due_connects_no_more() -> None:
    pbx = FakePbx()
    async with linked(pbx) as (_, _handler):
        pbx.drop()
        await asyncio.sleep(0.05)
    logins = pbx.logins
    await asyncio.sleep(1.2)
    assert pbx.logins == logins


async def test_the_fleet_adds_changes_and_removes_links_while_running() -> None:
    one, two = FakePbx(), FakePbx()
    await one.start()
    await two.start()
    handlers: dict[tuple[str, str], Handler] = {}
    fleet = Fleet(lambda key: handlers.setdefault(key, Handler()))
    target = LinkTarget("127.0.0.1", one.port, one.username, one.secret)
    try:
        await fleet.set({("1", "a"): target})
        await asyncio.wait_for(one.connected.wait(), WITHIN_S)
        await fleet.set({("1", "a"): target, ("2", "b"): LinkTarget("127.0.0.1", two.port, two.username, two.secret)})
        await asyncio.wait_for(two.connected.wait(), WITHIN_S)
        assert one.logins == 1
        await fleet.set({("2", "b"): LinkTarget("127.0.0.1", one.port, one.username, one.secret)})
        await until(lambda: one.logins == 2)
        assert set(fleet.links) == {("2", "b")}
    finally:
        await fleet.stop()
        await one.stop()
        await two.stop()


async def test_no_more_links_connect_at_once_than_the_gate_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting = most = 0

    async def slow(self: Link) -> None:
        nonlocal connecting, most
        connecting += 1
        most = max(most, connecting)
        await asyncio.sleep(0.02)
        connecting -= 1
        raise OSError("unreachable")

    monkeypatch.setattr(Link, "_connect", slow)
    gate, supervisor = asyncio.Semaphore(3), Supervisor("test")
    links = [Link(str(n), LinkTarget("127.0.0.1", 1, "u", "s"), Handler(), gate) for n in range(12)]
    for link in links:
        supervisor.serve(link.name, link.run)
    await until(lambda: all(link.status.failures for link in links))
    await supervisor.stop()
    assert most == 3


async def test_tls_is_checked_by_authority_or_by_pinned_fingerprint(tmp_path: Path) -> None:
    certificate, key, fingerprint = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    pbx = FakePbx()
    await pbx.start()
    server = await asyncio.start_server(pbx._serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    async def outcome(pin: str | None) -> LinkStatus:
        """The first state that it comes to rest in; a refused one tries again at once."""
        handler, supervisor, seen = Handler(), Supervisor("test"), list[LinkStatus]()
        link = Link("t", LinkTarget("127.0.0.1", port, pbx.username, pbx.secret, True, pin), handler, asyncio.Semaphore(1))
        supervisor.serve("link", link.run)

        def has_settled() -> bool:
            seen.append(link.status)
            return link.status.state in (LinkState.READY, LinkState.WAITING)

        await until(has_settled)
        await supervisor.stop()
        return seen[-1]

    try:
        assert (await outcome(fingerprint)).state is LinkState.READY
        assert "CERTIFICATE_VERIFY_FAILED" in (await outcome(None)).reason
        assert "not the pinned one" in (await outcome("00" * 32)).reason
    finally:
        server.close()
        await pbx.stop()


def test_delays_grow_with_full_jitter_up_to_their_cap() -> None:
    assert lost_delay_s(0, 0.999) < 1
    assert lost_delay_s(3, 0.0) == 0
    assert max(lost_delay_s(n, 0.999) for n in range(100)) < 30
    assert lost_delay_s(10, 0.5) == 15


def test_refusals_are_retried_after_1_5_and_15_minutes() -> None:
    assert [refused_delay_s(RefusedFor.CREDENTIALS, n, 0.0) for n in (1, 2, 3, 4, 99)] == [60, 300, 900, 900, 900]
    assert refused_delay_s(RefusedFor.ALREADY_IN_USE, 5, 0.0) == 30


def test_a_target_does_not_show_its_secret() -> None:
    assert "hidden" not in repr(LinkTarget("h", 1, "u", "hidden"))
