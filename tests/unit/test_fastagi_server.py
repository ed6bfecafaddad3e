"""The FastAGI listener on real sockets, with peers that behave badly. Nobody is held, and nobody good suffers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from daemon.errors import VochidError
from daemon.fastagi import server as server_module
from daemon.fastagi.server import FastAgi, Refused, Route, Variables, plain_address
from daemon.fastagi.wire import Request
from daemon.settings import Listen
from lab.dialplan import ask, environment
from lab.office import free_port
from tests.patience import PATIENCE_S
from tests.rig import WITHIN_S


@dataclass
class Anybody:
    known: bool = True
    enterprises: frozenset[str] = frozenset({"0367"})
    seen: list[str] = field(default_factory=list)

    def is_known(self, address: str) -> bool:
        self.seen.append(address)
        return self.known

    def may_ask(self, address: str, enterprise: str) -> bool:
        return enterprise in self.enterprises


async def found(request: Request) -> Variables:
    return {"VOCHI_REDIRECT": "150", "VOCHI_CALLER_NAME": request.env.get("agi_calleridname", ""), "VOCHI_STATUS": "found"}


@asynccontextmanager
async def listening(route: Route = found, peers: Anybody | None = None) -> AsyncIterator[tuple[FastAgi, str]]:
    agi, port = FastAgi(peers or Anybody(), {"smart-redirect": route}), free_port()
    await agi.start(Listen(host="127.0.0.1", port=port))
    try:
        yield agi, f"127.0.0.1:{port}"
    finally:
        await agi.stop()


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def emptied(agi: FastAgi) -> None:
    async with asyncio.timeout(WITHIN_S):
        while agi.dialogues:
            await asyncio.sleep(0.01)


async def said(address: str, data: bytes, *, and_no_more: bool = False) -> bytes:
    """Sends `data`, and gives everything that comes until the server closes. and_no_more: says that this is all."""
    reader, writer = await connect(address)
    try:
        async with asyncio.timeout(WITHIN_S):
            writer.write(data)
            if and_no_more:
                writer.write_eof()
            got = b""
            with suppress(ConnectionError):
                while chunk := await reader.read(4_096):
                    got += chunk
            return got
    finally:
        writer.close()


async def test_a_dialogue_sets_the_variables_in_their_order_and_ends() -> None:
    async with listening() as (agi, address):
        asked = await ask(address, "0367")
        assert (asked.agistatus, list(asked.variables)) == ("SUCCESS", ["VOCHI_REDIRECT", "VOCHI_CALLER_NAME", "VOCHI_STATUS"])
        await emptied(agi)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00" * 20 + b"\n",
        b"".join(b"agi_x%d: 1\n" % number for number in range(10_000)),
        b"agi_x: " + b"x" * 1_000_000,
        b"\n",
        environment("0400"),
        environment("0367\nagi_arg_1: 0400"),
        environment("0367", script="nothing"),
        environment("0367") + b"nonsense\n",
        environment("0367") + b"510 Invalid or unknown command\n",
        environment("0367") + b"520-Invalid command syntax.\nUsage\n520 End of proper usage.\n",
        environment("0367") + b"520 Invalid command syntax.  Proper usage not available.\n",
        environment("0367") + b"511 Command Not Permitted on a dead channel or intercept routine\n",
    ],
)
async def test_what_is_no_question_or_no_answer_is_told_failure(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "DRAIN_S", PATIENCE_S)  # cut short in the middle of what it says a peer might not read the word
    async with listening() as (agi, address):
        assert (await said(address, data, and_no_more=True)).endswith(b"failure\n")
        await emptied(agi)
        assert (await ask(address, "0367")).variables["VOCHI_STATUS"] == "found"


async def test_connect_and_close_a_reset_and_a_hang_up_in_mid_dialogue_leave_nothing_behind() -> None:
    async with listening() as (agi, address):
        for data in (b"", b"agi_network: yes\n", environment("0367"), environment("0367") + b"200 result=1\n"):
            for abort in (False, True):
                _, writer = await connect(address)
                writer.write(data)
                with suppress(ConnectionError):
                    await writer.drain()
                if abort:
                    writer.transport.abort()
                writer.close()
        await emptied(agi)
        assert (await ask(address, "0367")).agistatus == "SUCCESS"


async def test_a_caller_who_hangs_up_is_no_fault() -> None:
    async with listening() as (agi, address):
        got = await said(address, environment("0367") + b"HANGUP\n200 result=-1\nHANGUP\n200 result=1\n200 result=1\n")
        assert got.count(b"SET VARIABLE") == 3
        assert b"failure" not in got
        await emptied(agi)


async def test_latin_1_is_understood() -> None:
    async with listening() as (_, address):
        data = environment("0367").replace(b"agi_calleridname: unknown", "agi_calleridname: Café".encode("latin-1"))
        assert 'VOCHI_CALLER_NAME "Café"'.encode() in await said(address, data + b"200 result=1\n" * 3)


async def test_a_peer_without_a_blank_line_and_one_byte_a_second_have_one_deadline_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "ENV_DEADLINE_S", 0.3)
    async with listening() as (agi, address):
        assert await said(address, environment("0367").rstrip(b"\n")) == b"failure\n"
        reader, writer = await connect(address)
        async with asyncio.timeout(WITHIN_S):
            for byte in environment("0367"):
                if reader.at_eof() or agi.dialogues == 0:
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
        with suppress(ConnectionError):
            assert await reader.read(100) == b"failure\n"
        writer.close()
        await emptied(agi)


async def test_a_pbx_that_does_not_answer_a_command_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "ANSWER_DEADLINE_S", 0.1)
    async with listening() as (agi, address):
        assert (await said(address, environment("0367"))).endswith(b"failure\n")
        await emptied(agi)


async def test_strangers_are_refused_before_they_have_said_a_word() -> None:
    async with listening(peers=Anybody(known=False)) as (agi, address):
        assert await said(address, b"") == b"failure\n"
        await emptied(agi)


async def test_a_spoofed_enterprise_is_refused() -> None:
    async with listening(peers=Anybody(enterprises=frozenset({"0400"}))) as (_, address):
        assert (await ask(address, "0367")).agistatus == "FAILURE"


async def test_on_overload_a_peer_is_told_at_once_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_DIALOGUES_PER_PEER", 5)
    async with listening() as (agi, address):
        held = [await connect(address) for _ in range(5)]
        async with asyncio.timeout(WITHIN_S):
            while agi.dialogues < 5:
                await asyncio.sleep(0.01)
        # The drain lets a peer that writes on read the word; one that never closes is closed after DRAIN_S.
        assert await said(address, environment("0367")) == b"failure\n"
        for _, writer in held:
            writer.close()
        await emptied(agi)
        assert (await ask(address, "0367")).agistatus == "SUCCESS"


async def test_a_thousand_at_once_are_all_answered() -> None:
    async with listening() as (agi, address):
        asked = await asyncio.gather(*(ask(address, "0367", deadline_s=PATIENCE_S) for _ in range(1_000)))
        assert {each.agistatus for each in asked} == {"SUCCESS"}
        assert all(each.variables["VOCHI_STATUS"] == "found" for each in asked)
        await emptied(agi)


async def test_a_bug_in_a_route_is_told_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: Request) -> Variables:
        raise RuntimeError("a bug")

    async with listening(broken) as (agi, address):
        assert (await ask(address, "0367")).agistatus == "FAILURE"
        await emptied(agi)


async def test_a_route_may_refuse_and_a_value_that_cannot_travel_is_not_sent() -> None:
    async def refuse(_: Request) -> Variables:
        raise Refused("overload")

    async def hostile(_: Request) -> Variables:
        return {"VOCHI_REDIRECT": "150\nEXEC System x"}

    for route in (refuse, hostile):
        async with listening(route) as (_, address):
            assert await said(address, environment("0367")) == b"failure\n"


async def test_the_stop_tells_open_dialogues_failure() -> None:
    waiting = asyncio.Event()

    async def forever(_: Request) -> Variables:
        waiting.set()
        await asyncio.Event().wait()
        return {}

    async with listening(forever) as (agi, address):
        asking = asyncio.ensure_future(ask(address, "0367"))
        await asyncio.wait_for(waiting.wait(), WITHIN_S)
        await agi.stop()
        assert (await asking).agistatus == "FAILURE"


async def test_a_taken_port_is_a_clear_error() -> None:
    async with listening() as (_, address):
        with pytest.raises(VochidError, match="cannot listen on"):
            await FastAgi(Anybody(), {}).start(Listen(host="127.0.0.1", port=int(address.rpartition(":")[2])))


def test_addresses_are_compared_as_settings_write_them() -> None:
    assert plain_address("::ffff:127.0.0.1") == "127.0.0.1"
    assert plain_address("fe80::1%eth0") == "fe80::1"
