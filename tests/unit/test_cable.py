"""The cable of chaos does to a connection what it says, and nothing when it is calm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lab.cable import Cable, Trouble

TEXT = bytes(range(256)) * 200


@asynccontextmanager
async def echo(path: Path | None = None) -> AsyncIterator[Cable]:
    """A cable before a server that says everything back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except ConnectionError:
            pass
        writer.close()

    if path is None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        cable = Cable(server.sockets[0].getsockname()[1], seed=5)
    else:
        server = await asyncio.start_unix_server(serve, path / "far")
        cable = Cable(path / "far", path / "near", seed=5)
    await cable.mend()
    try:
        yield cable
    finally:
        await cable.cut()
        server.close()


async def said_back(cable: Cable, size: int = len(TEXT)) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", cable.port)
    try:
        writer.write(TEXT)
        async with asyncio.timeout(30):
            return await reader.readexactly(size)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("trouble", [Trouble(), Trouble(slice_bytes=700), Trouble(latency_s=0.001, jitter_s=0.002), Trouble(bandwidth=10_000_000)])
async def test_whatever_it_does_to_the_pace_every_byte_arrives_in_order(trouble: Trouble) -> None:
    async with echo() as cable:
        cable.trouble = trouble
        assert await said_back(cable) == TEXT


async def test_latency_delays_and_bandwidth_thins() -> None:
    async with echo() as cable:
        for trouble in (Trouble(latency_s=0.1), Trouble(bandwidth=400_000)):
            cable.trouble = trouble
            started = time.monotonic()
            await said_back(cable)
            assert time.monotonic() - started > 0.1


async def test_limited_data_end_in_a_reset_in_the_middle_and_the_next_connection_begins_anew() -> None:
    async with echo() as cable:
        cable.trouble = Trouble(limit_bytes=10_000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await said_back(cable)
        cable.trouble = Trouble()
        assert await said_back(cable) == TEXT


async def test_what_is_stalled_goes_on_and_what_is_stranded_never_does_while_new_connections_work() -> None:
    async with echo() as cable:
        reader, writer = await asyncio.open_connection("127.0.0.1", cable.port)
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        cable.stall()
        writer.write(b"2")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        await cable.mend()
        assert await asyncio.wait_for(reader.readexactly(1), 30) == b"2"
        cable.strand()
        writer.write(b"3")
        assert await said_back(cable) == TEXT
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        writer.transport.abort()


async def test_cut_resets_and_refuses_until_it_is_mended_on_the_same_port() -> None:
    async with echo() as cable:
        reader, writer = await asyncio.open_connection("127.0.0.1", cable.port)
        writer.write(b"1")
        await reader.readexactly(1)
        port = cable.port
        await cable.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 30)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        await cable.mend()
        assert cable.port == port
        assert await said_back(cable) == TEXT
        writer.transport.abort()


async def test_it_runs_between_unix_sockets_too(tmp_path: Path) -> None:
    async with echo(tmp_path) as cable:
        for _ in range(2):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "near")
            writer.write(b"ping")
            assert await asyncio.wait_for(reader.readexactly(4), 30) == b"ping"
            writer.transport.abort()
            await cable.cut()
            await cable.mend()
