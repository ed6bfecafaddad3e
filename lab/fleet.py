"""Many PBXs and their enterprises, for one daemon: a database that is filled before the daemon starts, and what its process used.

PBXs play recorded calls with identities of their own for each (benchmarks and long runs, never the demo).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.registry import adapters
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault, load_keys
from daemon.store.embedded import EmbeddedPostgres
from daemon.store.migrate import migrate
from daemon.store.pool import Database
from daemon.tenants.service import Tenants

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a process has used since it began: CPU seconds, without its children and with those that are over; and what it holds: memory in
    kB (Linux, /proc)."""

    cpu_s: float
    memory_kb: int
    with_children_s: float = 0.0

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Of one process."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
        ticks = [int(field) for field in fields[11:15]]
        return cls(sum(ticks[:2]) / TICKS, int(status["VmRSS"].split()[0]), sum(ticks) / TICKS)


async def fill(data_dir: Path, documents: Iterable[dict[str, Any]]) -> None:
    """A data directory as a daemon left it that was given these enterprises."""
    server = EmbeddedPostgres(data_dir)
    await server.start(own=True)
    try:
        await migrate(server.url)
        db = await Database.open(server.url)
        try:
            kinds = {name: adapter.settings for name, adapter in adapters().items()}
            tenants = Tenants(db, Vault(load_keys(None, None, data_dir)), EgressPolicy(["127.0.0.0/8"]), kinds)
            for document in documents:
                await tenants.put(document["number"], document)
        finally:
            await db.close()
    finally:
        await server.stop()


def self_signed(directory: Path) -> tuple[Path, Path, str]:
    """A certificate as PBXs have them: signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pbx")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(private)
    return directory / "cert.pem", directory / "key.pem", made.fingerprint(hashes.SHA256()).hex()


def serving_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a PBX with this certificate speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
