"""Erasure from outside: the route, the command, and what a running daemon remembers."""

from __future__ import annotations

import asyncpg
import httpx

from tests.e2e.conftest import NUMBER, House
from tests.e2e.test_afterwards import trace_of
from tests.e2e.test_api import is_problem

ONE = f"/api/enterprises/{NUMBER}"
PHONE = "+375296254070"


async def test_a_customer_is_forgotten_by_route_and_by_command(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=house.document)
    for body in ({}, {"phone": 5}, {"phone": "150"}, {"phone": "x"}, {"phone": PHONE, "dry_run": "no"}, [], {"phone": house.document["lines"][0]["number"]}):
        is_problem(await api.post(f"{ONE}/erasure", json=body), 400)
    is_problem(await api.post("/api/enterprises/0999/erasure", json={"phone": PHONE}), 404)
    await house.linked()
    await house.play("inbound-answered")
    [call] = await house.settled(1)
    assert call["customer_number"] == PHONE
    owner = await asyncpg.connect(house.daemon.environment["VOCHID_DATABASE_URL"])
    await owner.execute("update calls set ended_at = now() + interval '1 hour'")  # whatever the pace, just ended
    assert (await api.post(f"{ONE}/erasure", json={"phone": PHONE})).json()["still_live"] == 1
    await trace_of(api, call["id"])  # put away a moment after the call
    await owner.execute("update calls set ended_at = now() - interval '10 minutes'")
    dry = house.cli("erase", "8 029 625-40-70", "--enterprise", NUMBER)
    assert dry.returncode == 0, dry.stderr
    assert "would be erased" in dry.stdout
    assert "     1  calls" in dry.stdout
    assert (await api.get(f"{ONE}/calls/{call['id']}")).json()["customer_number"] == PHONE
    done = house.cli("erase", PHONE, "--enterprise", NUMBER, "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("erased:")
    erased = (await api.get(f"{ONE}/calls/{call['id']}")).json()
    assert (erased["customer_number"], erased["customer_name"], erased["recordings"], erased["result"]) == (None, None, [], "answered")
    assert all(PHONE[1:] not in str(leg) for leg in erased["legs"])
    assert PHONE[1:] not in (await api.get(f"{ONE}/logs")).text
    assert PHONE[1:] not in (await api.get(f"{ONE}/calls/{call['id']}/trace")).text
    again = (await api.post(f"{ONE}/erasure", json={"phone": PHONE, "dry_run": False})).json()
    assert (again["dry_run"], set(again["found"].values())) == (False, {0})
    noted = await owner.fetch("select who, details::text from audit where action = 'number erased'")
    assert len(noted) == 2
    assert all(PHONE[1:] not in row["details"] for row in noted)
    assert house.cli("erase", "nobody", "--enterprise", NUMBER).returncode == 1
    await owner.close()
