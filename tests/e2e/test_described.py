"""The API keeps what its own description says: schemathesis makes requests from /api/openapi.json, and judges every answer by it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from tests.e2e.conftest import NUMBER, House

pytestmark = pytest.mark.timeout(600)
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
ENDLESS = {"/api/enterprises/{n}/live"}  # a stream has no end to be judged at
LAST = ("get", "head", "options", "post", "put", "patch", "delete")  # what takes away comes last
EXAMPLES = 6


async def test_no_request_made_from_the_description_meets_a_fault_or_an_undescribed_answer(house: House, api: httpx.AsyncClient) -> None:
    await house.daemon.put(house.document)
    await house.linked()
    await house.play("inbound-answered", "inbound-not-answered")
    await house.settled(2)
    token = (await api.post(f"/api/enterprises/{NUMBER}/tokens", json={"name": "fuzz"})).json()["token"]
    known = {
        "n": NUMBER, "crm": "retailcrm", "id": (await api.get(f"/api/enterprises/{NUMBER}/calls")).json()["items"][0]["id"],
    }  # fmt: skip
    description = (await api.get("/api/openapi.json")).json()
    faults = await asyncio.to_thread(_judge, description, f"http://{house.daemon.http}", token, known)
    faults += [line for line in house.daemon.log.read_text().splitlines() if "request failed" in line or "Traceback" in line]
    assert not faults, "\n\n".join(faults)


def _judge(description: dict[str, Any], base: str, token: str, known: dict[str, str]) -> list[str]:
    schema = schemathesis.openapi.from_dict(description)
    operations = sorted((found.ok() for found in schema.get_all_operations()), key=lambda o: LAST.index(o.method.lower()))
    faults: list[str] = []
    for operation in operations:
        if operation.path not in ENDLESS:
            _judge_operation(operation, base, token, known, faults)
    return faults


def _judge_operation(operation: Any, base: str, token: str, known: dict[str, str], faults: list[str]) -> None:
    """Every other example of what the description allows goes to what there is: random ids mostly meet 404."""

    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(case=operation.as_strategy(), real=st.booleans())
    def judge(case: Any, real: bool) -> None:
        if real:
            case.path_parameters = {name: known.get(name, value) for name, value in (case.path_parameters or {}).items()}
        case.call_and_validate(base_url=base, headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)

    try:
        judge()
    except BaseException as fault:
        faults.append(f"{operation.method.upper()} {operation.path}: {fault}"[:1_500])
