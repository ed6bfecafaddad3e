"""amoCRM clients that others wrote drive our sandbox: it and they read the same contract."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import shutil
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.crm.amocrm import AmoCrmSandbox
from tests.conftest import IN_CI

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from amocrm.v2 import Company, Contact, Lead, exceptions, tokens
    from amocrm.v2.entity.call import Call as ForeignCall
    from amocrm.v2.entity.user import User as ForeignUser

NODE = Path(__file__).parent / "node"
KNOWN = "+375296254070"


@pytest.fixture
async def box() -> AsyncIterator[AmoCrmSandbox]:
    sandbox = AmoCrmSandbox()
    await sandbox.start()
    sandbox.oauth.integration.redirect_uri = "https://pbx.example/amocrm/callback"
    yield sandbox
    await sandbox.stop()


class ToSandbox(requests.adapters.HTTPAdapter):
    """The client's host is fixed in its code: what it sends there goes to the sandbox."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def send(self, request: requests.PreparedRequest, *arguments: Any, **more: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        request.url = f"{self._url}{parts.path}{'?' + parts.query if parts.query else ''}"
        return super().send(request, *arguments, **more)


@pytest.fixture
def foreign(box: AmoCrmSandbox, monkeypatch: pytest.MonkeyPatch) -> tokens.TokenManager:
    """amocrm_api, pointed at the sandbox."""
    session = requests.Session()
    session.trust_env = False
    session.mount("https://sandbox.amocrm.ru", ToSandbox(box.url))
    monkeypatch.setattr("amocrm.v2.interaction._session", session)
    monkeypatch.setattr("amocrm.v2.tokens.requests.post", session.post)
    for part in (Contact, Lead, Company, ForeignUser):
        monkeypatch.setattr(part.objects._interaction, "_session", session)
    manager = tokens.default_token_manager
    manager._storage = None
    made = box.oauth.integration
    manager(made.client_id, made.client_secret, "sandbox", made.redirect_uri, tokens.MemoryTokensStorage())
    return manager


async def test_amocrm_api_consents_reads_and_writes_calls(box: AmoCrmSandbox, foreign: tokens.TokenManager, monkeypatch: pytest.MonkeyPatch) -> None:
    contact = box.account.contact("Восток", KNOWN)
    code = dict(parse_qsl(urlsplit(box.oauth.way_back("s")).query))["code"]
    session = Contact.objects._interaction._session

    def drive() -> dict[str, Any]:
        foreign.init(code)
        calls = ForeignCall(token_manager=foreign, session=session)
        answers: dict[str, Any] = {"call": calls.create("inbound", KNOWN, "foreign", 5, uniq="foreign-1")}
        with pytest.raises(exceptions.ValidationError) as unknown:
            calls.create("inbound", "+375290000000", "foreign", 5)
        with pytest.raises(exceptions.ValidationError) as invalid:
            calls.create("sideways", KNOWN, "foreign", 5)
        answers["unknown"], answers["invalid"] = unknown.value.args[0], invalid.value.args[0]
        answers["contacts"] = [one.id for one in Contact.objects.all()]
        answers["found"] = [one.name for one in Contact.objects.filter(query=KNOWN)]
        answers["made"] = Contact.objects.create(name="Somebody").id
        answers["users"] = [one.name for one in ForeignUser.objects.all()]
        former = foreign._storage.get_refresh_token()
        foreign._storage.save_tokens(*foreign._get_new_tokens())
        foreign._storage.save_tokens(foreign._storage.get_access_token(), former)
        with pytest.raises(EnvironmentError, match="revoked"):
            foreign._get_new_tokens()
        box.oauth.revoke()
        with pytest.raises(exceptions.UnAuthorizedException):
            calls.create("inbound", KNOWN, "foreign", 5)
        return answers

    box.switches.rate_limited = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        answers = await asyncio.to_thread(drive)
    assert answers["call"]["entity_id"] == contact["id"]
    assert answers["unknown"]["errors"][0]["title"] == "Entity not found"
    assert answers["invalid"]["validation-errors"][0]["errors"][0]["path"] == "direction"
    assert answers["found"] == ["Восток"]
    assert answers["contacts"] == [contact["id"]]
    assert answers["made"] in box.account.contacts
    assert len(answers["users"]) == 3
    assert [note["params"]["uniq"] for note in box.account.calls()] == ["foreign-1"]


def certificate(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """Of the sandbox's own, for 127.0.0.1."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sandbox")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    path = directory / "sandbox.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "sandbox.key").write_bytes(private)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path, directory / "sandbox.key")
    return path, context


@pytest.mark.skipif(not IN_CI and (shutil.which("node") is None or not (NODE / "node_modules").exists()), reason="needs node and `make interop-node`")
async def test_a_node_client_consents_and_meets_every_refusal(tmp_path: Path) -> None:
    authority, context = certificate(tmp_path)
    box = AmoCrmSandbox()
    box.switches.rate_limited = False  # the two clients below do not know of each other
    await box.start(ssl=context)
    made = box.oauth.integration
    made.redirect_uri = "https://pbx.example/amocrm/callback"
    try:
        contact = box.account.contact("Восток", KNOWN)
        spent = box.oauth.pair()
        box.oauth.tokens.spent.add(spent["refresh_token"])
        code = dict(parse_qsl(urlsplit(box.oauth.way_back("s")).query))["code"]
        asked = {
            "host": urlsplit(box.url).netloc, "phone": KNOWN, "contact": contact["id"], "code": code,
            "auth": {"client_id": made.client_id, "client_secret": made.client_secret, "redirect_uri": made.redirect_uri}, "spent": spent,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            "node", "amo.js", json.dumps(asked), cwd=NODE, env={**os.environ, "NODE_EXTRA_CA_CERTS": str(authority)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await asyncio.wait_for(process.communicate(), 120)
    finally:
        await box.stop()
    assert process.returncode == 0, errors.decode()
    said = json.loads(out)
    answers = said["answers"]
    assert said["tokens"] == 1
    for name in ("account", "users", "call", "unsorted", "note", "task", "webhook"):
        assert "ok" in answers[name], (name, answers[name])
    assert answers["call"]["ok"]["_embedded"]["calls"][0]["request_id"] == "7"
    assert answers["spent"]["response"]["hint"] == "Token has been revoked"
    assert answers["unknown"]["response"]["errors"][0]["title"] == "Entity not found"
    assert answers["invalid"]["response"]["validation-errors"][0]["errors"][0]["path"] == "direction"
    assert answers["null_note"]["response"]["validation-errors"][0]["errors"][0]["code"] == "NotNullable"
