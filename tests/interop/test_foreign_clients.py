"""Foreign AMI clients against our fake PBX, and as oracles for our parser: an independent reading of the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings
from pathlib import Path

import pytest

from daemon.ami.wire import Frame, FrameReader
from lab.dialplan import ask
from lab.fakepbx import FakePbx

GOLDEN = Path(__file__).parent.parent / "golden"
TRACES = sorted(GOLDEN.glob("*/*.ami"))


@pytest.mark.parametrize("trace", TRACES[::6], ids=lambda trace: f"{trace.parent.name}-{trace.stem}")
def test_panoramisk_reads_the_same_messages(trace: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from panoramisk.message import Message
    ours = [item for item in FrameReader().feed(trace.read_bytes()) if isinstance(item, Frame)]
    theirs = [Message.from_line(text) for text in trace.read_bytes().decode().split("\r\n\r\n") if text.strip()]
    assert len(ours) == len(theirs)
    for frame, message in zip(ours, theirs, strict=True):
        for key, value in frame.items():
            other = message[key]
            assert value == (other[0] if isinstance(other, list) else other).strip() or value.strip() == str(other).strip()


async def test_panoramisk_logs_in_to_the_fake_pbx_and_hears_its_events() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from panoramisk import Manager

        pbx = FakePbx()
        await pbx.start()
        heard: list[str] = []
        manager = Manager(host="127.0.0.1", port=pbx.port, username=pbx.username, secret=pbx.secret, ping_delay=60)
        manager.register_event("*", lambda _, message: heard.append(message.event))
        try:
            await manager.connect()
            await asyncio.wait_for(pbx.connected.wait(), 30)
            await pbx.play(GOLDEN / "inbound-answered/asterisk-22.ami", speed=50)
            async with asyncio.timeout(30):
                while "Hangup" not in heard:
                    await asyncio.sleep(0.02)
        finally:
            manager.close()
            await pbx.stop()
            await asyncio.sleep(0.05)


PYST2 = """
import sys
from asterisk.manager import Manager
manager = Manager()
manager.connect("127.0.0.1", int(sys.argv[1]))
print(manager.login(sys.argv[2], sys.argv[3]).response, flush=True)
"""


async def test_pyst2_logs_in_to_the_fake_pbx() -> None:
    pbx = FakePbx()
    await pbx.start()
    # In a process of its own: its threads outlive what they are told.
    command = [sys.executable, "-W", "ignore", "-c", PYST2, str(pbx.port), pbx.username, pbx.secret]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        assert b"Success" in await asyncio.wait_for(process.stdout.readline(), 60)
    finally:
        process.kill()
        await process.communicate()
        await pbx.stop()


PYST2_AGI = """
import sys
from asterisk.agi import AGI
agi = AGI()
assert agi.env["agi_arg_1"] == "0367", agi.env
agi.set_variable("VOCHI_REDIRECT", "150")
agi.set_variable("VOCHI_STATUS", "found")
"""


async def test_pyst2s_agi_speaks_as_our_server_does_and_our_peer_understands_both() -> None:
    """pyst2 is a FastAGI server's inner part: bridged to a socket it answers the same peer that tests ours, so the peer is no mirror
    of our own reading of the protocol."""

    async def bridge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", PYST2_AGI, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdin is not None
        assert process.stdout is not None

        async def forward(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            while data := await source.read(4_096):
                to.write(data)
                with contextlib.suppress(ConnectionError):
                    await to.drain()

        answering = asyncio.ensure_future(forward(reader, process.stdin))
        await forward(process.stdout, writer)
        answering.cancel()
        await process.wait()
        writer.close()

    server = await asyncio.start_server(bridge, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        theirs = await ask(f"127.0.0.1:{port}", "0367", deadline_s=60)
    finally:
        server.close()
    assert theirs.variables == {"VOCHI_REDIRECT": "150", "VOCHI_STATUS": "found"}
