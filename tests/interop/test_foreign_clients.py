"""Foreign AMI clients against our fake PBX, and as oracles for our parser: an independent reading of the same bytes."""

from __future__ import annotations

import asyncio
import sys
import warnings
from pathlib import Path

import pytest

from daemon.ami.wire import Frame, FrameReader
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
            await asyncio.wait_for(pbx.connected.wait(), 5)
            await pbx.play(GOLDEN / "inbound-answered/asterisk-22.ami", speed=50)
            async with asyncio.timeout(5):
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
        assert b"Success" in await asyncio.wait_for(process.stdout.readline(), 15)
    finally:
        process.kill()
        await process.communicate()
        await pbx.stop()
