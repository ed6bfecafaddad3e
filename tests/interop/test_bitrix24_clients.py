"""The portal in a box against clients that are not ours: the vendor's own SDK over TLS, and fast-bitrix24. What they send is understood, what
they expect is answered, and every refusal is the one that they know by that name."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from b24pysdk import BitrixApp, BitrixToken, BitrixWebhook, Client, errors
from b24pysdk.api.callers import call_method
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.bitrix24.sync_fields import ORIGINATOR, VIEW, Surroundings, from_portal, origin, to_portal
from daemon.model.crm_record import RecordType
from lab.crm.bitrix24 import Bitrix24Sandbox
from lab.crm.bitrix24_data import PortalUser

PHONE = "+375296254070"


def _certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")]), datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    built = built.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = folder / "portal.pem"
    certificate.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = folder / "portal.key"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return context, certificate


@pytest.fixture
async def portal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bitrix24Sandbox]:
    context, certificate = _certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    box = Bitrix24Sandbox()
    await box.start(tls=context)
    yield box
    await box.stop()


class Vendor:
    """The vendor's SDK, which blocks, in a thread."""

    def __init__(self, box: Bitrix24Sandbox) -> None:
        self.domain = box.url.partition("//")[2]
        self.token = f"{box.webhook_user}/{box.webhook_code}"
        self.client = Client(BitrixWebhook(domain=self.domain, webhook_token=self.token))

    async def call(self, method: str, **params: Any) -> Any:
        """One method through the webhook; gives `result`."""
        work = lambda: call_method(domain=self.domain, auth_token=self.token, is_webhook=True, api_method=method, params=params, max_retries=1)  # noqa: E731
        return (await asyncio.to_thread(work))["result"]

    async def refused(self, error: type[Exception], method: str, **params: Any) -> str:
        with pytest.raises(error) as refusal:
            await self.call(method, **params)
        return str(getattr(refusal.value, "error_description", "") or refusal.value)


async def test_the_vendors_sdk_registers_shows_finishes_and_attaches(portal: Bitrix24Sandbox) -> None:
    vendor = Vendor(portal)
    app = BitrixApp(client_id=portal.client_id, client_secret=portal.client_secret)
    by_token = Client(BitrixToken(domain=vendor.domain, auth_token=portal.grant().access, bitrix_app=app)).telephony
    started = await asyncio.to_thread(lambda: by_token.external_call.register(PHONE, 2, user_id=12, external_call_id="pbx-1").result)
    again = await asyncio.to_thread(lambda: by_token.external_call.register(PHONE, 2, user_id=12, external_call_id="pbx-1").result)
    assert again["CALL_ID"] == started["CALL_ID"]
    await asyncio.to_thread(lambda: by_token.external_line.add("+375171112233", name="Sales").result)
    assert await asyncio.to_thread(lambda: by_token.external_line.get().result) == [{"NUMBER": "+375171112233", "NAME": "Sales", "CRM_AUTO_CREATE": "Y"}]
    call_id = started["CALL_ID"]
    assert await vendor.call("telephony.externalCall.show", CALL_ID=call_id, USER_ID=[13, 14]) is True
    assert await vendor.call("telephony.externalCall.hide", CALL_ID=call_id, USER_ID=13) is True
    assert portal.data.calls[call_id].cards == {"12", "14"}
    done = await vendor.call("telephony.externalCall.finish", CALL_ID=call_id, USER_ID=12, DURATION=95)
    assert (done["CALL_FAILED_CODE"], done["CALL_START_DATE"], done["INCOMING"]) == ("200", {}, "2")
    assert (await vendor.call("telephony.externalCall.attachRecord", CALL_ID=call_id, FILENAME="a.mp3", FILE_CONTENT="SUQz"))["FILE_ID"]
    step = await vendor.call("telephony.externalCall.attachRecord", CALL_ID=call_id, FILENAME="b.wav")
    assert (step["fieldName"], step["uploadUrl"].startswith(portal.url)) == ("file", True)
    users = await asyncio.to_thread(lambda: vendor.client.user.get(filter={"UF_PHONE_INNER": "150"}).result)
    assert [user["ID"] for user in users] == ["12"]
    batch = await asyncio.to_thread(
        lambda: vendor.client.call_batch({"me": vendor.client.user.current(), "bad": vendor.client.user.get(start=0)}).result.result
    )
    assert batch["me"]["ID"] == "1"


async def test_every_refusal_is_the_one_that_the_vendors_sdk_knows(portal: Bitrix24Sandbox) -> None:
    vendor, switches = Vendor(portal), portal.switches
    register = {"USER_ID": 12, "PHONE_NUMBER": PHONE, "TYPE": 2}
    bad = errors.BitrixAPIBadRequest
    for params, words in (
        ({**register, "USER_ID": None}, "USER_ID or USER_PHONE_INNER should be set"), ({**register, "TYPE": 9}, "Unknown TYPE"),
        ({**register, "CALL_START_DATE": "yesterday"}, "ISO-8601"), ({**register, "PHONE_NUMBER": "nobody"}, "Unsupported phone number"),
        ({**register, "USER_ID": 999}, "User is not found"), ({**register, "USER_ID": 16}, "User is not found"),
        ({"USER_PHONE_INNER": "999", "PHONE_NUMBER": PHONE, "TYPE": 2}, "User is not found"),
    ):  # fmt: skip
        assert words in await vendor.refused(bad, "telephony.externalCall.register", **{key: value for key, value in params.items() if value is not None})
    call_id = (await vendor.call("telephony.externalCall.register", **register))["CALL_ID"]
    attach = "telephony.externalCall.attachRecord"
    assert "not finished yet" in await vendor.refused(bad, attach, CALL_ID=call_id, RECORD_URL="https://pbx.example/a.wav")
    assert "must be a string" in await vendor.refused(bad, "telephony.externalCall.finish", USER_ID=12)
    await vendor.call("telephony.externalCall.finish", CALL_ID=call_id, USER_ID=12)
    assert "Call is not found" in await vendor.refused(bad, "telephony.externalCall.finish", CALL_ID=call_id, USER_ID=12)
    assert await vendor.call("telephony.externalCall.show", CALL_ID=call_id, USER_ID=12) is False
    for params, words in (
        ({}, "Required parameters are not set"), ({"FILENAME": "a.gsm", "FILE_CONTENT": "SUQz"}, "Wrong file extension"),
        ({"FILENAME": "a.wav", "FILE_CONTENT": "%"}, "not properly encoded"), ({"FILENAME": "a.wav", "FILE_CONTENT": ""}, "content is empty"),
    ):  # fmt: skip
        assert words in await vendor.refused(bad, attach, CALL_ID=call_id, **params)
    assert "PHONE_NUMBER is empty" in await vendor.refused(bad, "telephony.externalCall.searchCrmEntities")
    await vendor.refused(errors.BitrixAPIWrongAuthType, "telephony.externalLine.get")
    await vendor.refused(errors.BitrixAPIWrongAuthType, "event.bind", event="ONEXTERNALCALLSTART", handler="https://pbx.example/")
    await vendor.refused(errors.BitrixAPINotFound, "no.such.method")
    switches.webhook_may_register = False
    await vendor.refused(errors.BitrixAPIWrongAuthType, "telephony.externalCall.register", **register)
    portal.scopes.discard("crm")
    for status in (403, 401):
        switches.scope_status = status
        await vendor.refused(errors.BitrixAPIInsufficientScope, "crm.lead.add", fields={"TITLE": "x"})
    portal.cost_s["user.get"] = 481.0
    await vendor.call("user.get")
    await vendor.refused(errors.BitrixAPIOperationTimeLimit, "user.get")
    people = {"is_overloaded": errors.BitrixAPIOverloadLimit, "is_free_plan": errors.BitrixAPIAccessDenied, "is_deleted": errors.BitrixSDKException}
    for switch, error in people.items():
        setattr(switches, switch, True)
        await vendor.refused(error, "user.current")
        setattr(switches, switch, False)
    switches.bucket_per_s = 0.001
    portal.fill_bucket()
    await vendor.refused(errors.BitrixAPIQueryLimitExceeded, "user.current")
    switches.limited = False
    portal.webhook_code = "another0key"
    await vendor.refused(errors.BitrixAPIUnauthorized, "user.current")


async def test_the_vendors_sdk_meets_an_expired_token(portal: Bitrix24Sandbox) -> None:
    granted, domain = portal.grant(), portal.url.partition("//")[2]
    app = BitrixApp(client_id=portal.client_id, client_secret=portal.client_secret)

    def ask() -> Any:
        token = BitrixToken(domain=domain, auth_token=granted.access, bitrix_app=app)
        return Client(token).user.current().result

    assert (await asyncio.to_thread(ask))["ID"] == "1"
    portal.expire()
    with pytest.raises(errors.BitrixAPIExpiredToken):
        await asyncio.to_thread(lambda: call_method(domain=domain, auth_token=granted.access, is_webhook=False, api_method="user.current"))


FAST = """
import asyncio, json, sys
from fast_bitrix24 import BitrixAsync
from fast_bitrix24.server_response import ErrorInServerResponseException

async def main():
    client, found = BitrixAsync(sys.argv[1], verbose=False), {}
    found["users"] = len({user["ID"] for user in await client.get_all("user.get", {"FILTER": {"USER_TYPE": "employee"}})})
    numbers = [f"+37529000{number:04}" for number in range(60)]
    people = [{"fields": {"NAME": f"C{i}", "PHONE": [{"VALUE": phone, "VALUE_TYPE": "WORK"}]}} for i, phone in enumerate(numbers)]
    found["made"] = len(await client.call("crm.contact.add", people))
    searched = await client.call("telephony.externalcall.searchcrmentities", {"PHONE_NUMBER": "+375290000007"})
    found["name"] = (searched if isinstance(searched, dict) else searched[0])["NAME"]
    read = await client.call_batch({"halt": 0, "cmd": {"lead": "crm.lead.add?fields[TITLE]=Newer", "read": "crm.lead.get?id=$result[lead]"}})
    found["read"] = read["read"]["TITLE"]
    try:
        await client.call_batch({"halt": 0, "cmd": {"lead": "crm.lead.add?fields[TITLE]=New", "no": "crm.lead.get?id=0x"}})
    except ErrorInServerResponseException as error:
        found["refused"] = str(error)
    print(json.dumps(found), flush=True)

asyncio.run(main())
"""


async def test_fast_bitrix24_pages_batches_and_meets_errors_inside_a_batch() -> None:
    box = Bitrix24Sandbox(tuple(PortalUser(str(number), f"User {number}", str(number)) for number in range(1, 131)))
    await box.start()
    # In a process of its own: it never closes its connections.
    command = [sys.executable, "-W", "ignore", "-c", FAST, box.webhook_url]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        said, complaint = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, complaint.decode()[-1000:]
        found = json.loads(said)
        assert {name: found[name] for name in ("users", "made", "name", "read")} == {"users": 130, "made": 60, "name": "C7", "read": "Newer"}
        assert "ID is not defined or invalid" in found["refused"]
        batches = [request for request in box.requests if request.method == "batch"]
        assert max(len(request.params["cmd"]) for request in batches) == 50
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
        await box.stop()


async def test_what_the_sync_writes_the_vendors_sdk_writes_lists_and_reads_as_we_do(portal: Bitrix24Sandbox) -> None:
    vendor = Vendor(portal)
    crm = vendor.client.crm
    around = Surroundings(1_763_701_800.0, 1_763_701_900.0, "Europe/Minsk", "BY")
    views: dict[RecordType, dict[str, Any]] = {
        RecordType.COMPANY: {"name": "ООО «Восток»", "phone": PHONE},
        RecordType.USER: {"name": "Ирина Лис", "email": "i@example.com", "phone": PHONE, "role": "Диспетчер"},
        RecordType.CONTRACT: {"number": "7/26", "starts_on": "2026-03-01", "ends_on": "2027-03-01", "company": None},
        RecordType.OBJECT: {"name": "Трактор", "description": "синий\nс ковшом", "imei": "350000000000017", "type": "машина", "contract": "7/26"},
    }
    calls = {RecordType.COMPANY: crm.company, RecordType.USER: crm.contact, RecordType.CONTRACT: crm.deal, RecordType.OBJECT: crm.deal}
    for number, (kind, view) in enumerate(views.items(), 1):
        fields = {**to_portal(kind, view, VIEW[kind], {}, around), "ORIGINATOR_ID": ORIGINATOR, "ORIGIN_ID": origin("0367", kind, number)}
        method = calls[kind]
        made = await asyncio.to_thread(lambda method=method, fields=fields: method.add(fields).result)
        entity = await asyncio.to_thread(lambda method=method, made=made: method.get(made).result)
        seen = from_portal(kind, entity, view, "BY")
        assert {name: seen[name] for name in view if name in seen} == {name: view[name] for name in view if name in seen}
        assert {"maybe", "company"} | set(view) >= set(seen)
        wanted = {"ORIGINATOR_ID": ORIGINATOR, "ORIGIN_ID": origin("0367", kind, number)}
        listed = await asyncio.to_thread(lambda method=method, wanted=wanted: method.list(select=["*"], filter=wanted).result)
        assert [row["ID"] for row in listed] == [str(made)]
        title = "NAME" if kind is RecordType.USER else "TITLE"
        assert await asyncio.to_thread(lambda method=method, made=made, title=title: method.update(made, {title: "Другое"}).result) is True
        assert (await asyncio.to_thread(lambda method=method, made=made: method.get(made).result))[title] == "Другое"
    (phone,) = (await vendor.call("crm.contact.get", id=portal.data.ids["CONTACT"][0]))["PHONE"]
    await vendor.call("crm.contact.update", id=portal.data.ids["CONTACT"][0], fields={"PHONE": [{"ID": phone["ID"], "VALUE": ""}]})
    assert (await vendor.call("crm.contact.get", id=portal.data.ids["CONTACT"][0]))["HAS_PHONE"] == "N"
    after = portal.data.ids["DEAL"][0]
    rest = await vendor.call("crm.deal.list", filter={">ID": after}, order={"ID": "ASC"}, select=["ID"], start=-1)
    assert [row["ID"] for row in rest] == [str(one) for one in portal.data.ids["DEAL"][1:]]
    await vendor.call("crm.deal.delete", id=after)
    assert "Not found" in await vendor.refused(errors.BitrixAPIBadRequest, "crm.deal.get", id=after)
    task = await vendor.call("tasks.task.add", fields={"TITLE": "Позвонить", "RESPONSIBLE_ID": 12, "UF_CRM_TASK": [f"D_{after + 1}"]})
    tasks = await vendor.call("tasks.task.list", filter={"UF_CRM_TASK": f"D_{after + 1}"}, select=["ID", "TITLE", "STATUS"])
    assert [one["id"] for one in tasks["tasks"]] == [task["task"]["id"]]
