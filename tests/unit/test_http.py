"""The one way to a CRM, at its edges; whole conversations are in tests/contract."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aioresponses import aioresponses

from adapters.http import MAX_BODY_BYTES, CrmHttp, Observed, OverLimit, Unanswered, Unreachable
from daemon.delivery.rate import AccountLimiter
from daemon.model.delivery import Rate
from daemon.security.egress import EgressPolicy
from daemon.wiring.crm import GuardedSessions
from tests.fakes.aioresponses_compat import Response
from tests.patience import PATIENCE_S

URL = "https://crm.example/api"


@pytest.fixture
async def sessions() -> AsyncIterator[GuardedSessions]:
    guarded = GuardedSessions(EgressPolicy())
    yield guarded
    await guarded.close()


def http(sessions: GuardedSessions, *, seconds: float = PATIENCE_S, rate: int = 100, mask: tuple[str, ...] = (), observe: bool = False) -> CrmHttp:
    return CrmHttp(sessions, AccountLimiter({"all": Rate(rate, 1.0)}), time.monotonic() + seconds, mask, observe)


async def test_an_exchange_is_written_down_with_its_secrets_masked(sessions: GuardedSessions) -> None:
    with aioresponses() as crm:
        crm.post(URL, status=200, body='{"echo": "s3cret-key"}', response_class=Response)
        client = http(sessions, mask=("s3cret-key",))
        answer = await client.request("POST", URL, bucket="all", form={"calls": '[{"phone": "7"}]', "key": "s3cret-key"})
    assert answer.json() == {"echo": "s3cret-key"}
    [exchange] = client.exchanges
    assert "s3cret-key" not in json.dumps([dict(exchange.request), dict(exchange.response)])
    assert exchange.request["form"]["calls"] == [{"phone": "7"}]


async def test_a_redirect_is_an_answer_and_is_not_followed(sessions: GuardedSessions) -> None:
    with aioresponses() as crm:
        crm.get(URL, status=302, headers={"Location": "http://169.254.169.254/"}, response_class=Response)
        assert (await http(sessions).request("GET", URL, bucket="all")).status == 302


async def test_a_body_without_end_is_given_up() -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY_BYTES + 100_000))
        writer.close()

    allowed = GuardedSessions(EgressPolicy(["127.0.0.0/8"]))
    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    try:
        with pytest.raises(Unanswered, match="longer than"):
            await http(allowed).request("GET", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", bucket="all")
    finally:
        server.close()
        await allowed.close()


async def test_a_connection_that_is_refused_surely_sent_nothing(sessions: GuardedSessions) -> None:
    with aioresponses() as crm:
        crm.get(URL, exception=aiohttp.ClientConnectionError("refused"), response_class=Response)
        with pytest.raises(Unreachable):
            await http(sessions).request("GET", URL, bucket="all")


@pytest.mark.parametrize("url", ["https://127.0.0.1:9/", "https://localhost:9/", "http://127.0.0.1:9/", "https://[::1]:9/"])
async def test_private_addresses_are_refused_at_the_socket(url: str, sessions: GuardedSessions) -> None:
    with pytest.raises(Unreachable, match="not allowed"):
        await http(sessions).request("GET", url, bucket="all")


SPECIAL = ["127.0.0.1", "::1", "169.254.169.254", "10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00:ec2::254"]


@pytest.mark.parametrize("address", SPECIAL)
async def test_a_name_that_was_public_a_moment_ago_is_refused_when_it_leads_elsewhere(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the URL was good when it was entered, its name tells another address each time, and the address itself is what counts."""
    assert EgressPolicy().problem_with("https://crm.example/") is None
    asked = 0

    async def resolve(self: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:
        nonlocal asked
        asked += 1
        version = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [{"hostname": host, "host": address, "port": port, "family": version, "proto": 6, "flags": 0}]

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", resolve)
    monkeypatch.setattr("aiohttp.resolver.AsyncResolver.resolve", resolve)
    guarded = GuardedSessions(EgressPolicy())
    try:
        with pytest.raises(Unreachable, match="not allowed"):
            await http(guarded).request("GET", "https://crm.example/", bucket="all")
    finally:
        await guarded.close()
    assert asked, "the name was looked up"


async def test_over_the_limit_nothing_is_sent_and_the_place_is_given_back(sessions: GuardedSessions) -> None:
    limiter = AccountLimiter({"all": Rate(1, 3_600.0)})
    with aioresponses() as crm:
        crm.get(URL, status=200, body="{}", repeat=True, response_class=Response)
        await CrmHttp(sessions, limiter, time.monotonic() + PATIENCE_S).request("GET", URL, bucket="all")
        for _ in range(2):
            with pytest.raises(OverLimit) as caught:
                await CrmHttp(sessions, limiter, time.monotonic() + PATIENCE_S).request("GET", URL, bucket="all")
            assert 3_000 < caught.value.after_s < 3_601


async def test_a_request_leaves_no_sooner_than_its_place(sessions: GuardedSessions) -> None:
    limiter = AccountLimiter({"all": Rate(1, 0.3)})
    with aioresponses() as crm:
        crm.get(URL, status=200, body="{}", repeat=True, response_class=Response)
        began = time.monotonic()
        for _ in range(2):
            await CrmHttp(sessions, limiter, began + PATIENCE_S).request("GET", URL, bucket="all")
        assert time.monotonic() - began >= 0.3


async def test_mode_observe_writes_down_and_sends_nothing(sessions: GuardedSessions) -> None:
    client = http(sessions, observe=True)
    with pytest.raises(Observed):
        await client.request("POST", URL, bucket="all", form={"event": "{}"})
    assert client.exchanges[0].response == {"observed": True}


async def test_whether_the_request_had_left_decides_what_a_failure_means() -> None:
    allowed = GuardedSessions(EgressPolicy(["127.0.0.0/8"]))
    seen = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        seen.set()
        writer.transport.abort()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(Unanswered):
            await http(allowed).request("POST", f"http://127.0.0.1:{port}/", bucket="all", form={"a": "b"})
        assert seen.is_set()
        server.close()
        await server.wait_closed()
        with pytest.raises(Unreachable):
            await http(allowed).request("POST", f"http://127.0.0.1:{port}/", bucket="all", form={"a": "b"})
    finally:
        server.close()
        await allowed.close()
