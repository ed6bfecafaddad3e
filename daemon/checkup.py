"""Settings that are well each for itself and do not fit each other: found before a call finds them. For `vochid doctor`."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from daemon.model.delivery import Check
from daemon.model.integration import IntegrationSettings
from daemon.settings import Settings
from daemon.tenants.document import DirectoryRecordings, Enterprise, Pbx
from daemon.tenants.service import Tenancy

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_files(settings: Settings) -> Check:
    """The keys are for their owner alone."""
    file = settings.secret_keys_file or settings.data_dir / "secret_keys"
    if settings.secret_keys or not file.exists():
        return Check("keys", True)
    loose = file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return Check("keys", not loose, f"{file} can be read by others: chmod 600 {file}" if loose else "")


def check_enterprise(settings: Settings, tenancy: Tenancy) -> Iterator[Check]:
    """One enterprise's document against the process's settings and this machine."""
    enterprise = tenancy.enterprise
    yield from _public_url(settings, enterprise, tenancy)
    for pbx in enterprise.pbxs:
        yield from _fastagi(settings, enterprise, pbx)
        if isinstance(pbx.recordings, DirectoryRecordings):
            yield _recordings(enterprise, pbx, pbx.recordings)
        yield _extensions(enterprise, pbx)


def _public_url(settings: Settings, enterprise: Enterprise, tenancy: Tenancy) -> Iterator[Check]:
    """CRMs in the internet call back, and play recordings, at VOCHID_PUBLIC_URL."""
    outside = sorted(name for name, one in tenancy.integrations.items() if one.enabled and one.mode == "live" and _is_outside(one))
    if outside:
        parts = urlsplit(settings.base_url)
        good = parts.scheme == "https" and not _is_local(parts.hostname or "")
        told = f"{', '.join(outside)} cannot reach {settings.base_url}: set VOCHID_PUBLIC_URL to the https address of the reverse proxy"
        yield Check(f"{enterprise.number} public address", good, settings.base_url if good else told)


def _fastagi(settings: Settings, enterprise: Enterprise, pbx: Pbx) -> Iterator[Check]:
    if enterprise.smart_redirect.mode == "off" or _is_local(pbx.host) or pbx.secret is None:
        return
    name = f"{enterprise.number} pbx {pbx.name} asks"
    if _is_local(settings.fastagi.host) and settings.fastagi.host not in ("0.0.0.0", "::"):
        told = f"FastAGI listens on {settings.fastagi}, which {pbx.host} cannot reach: set VOCHID_FASTAGI to an address of the PBX's network"
        yield Check(name, False, told)
        return
    address = _address(pbx.host)
    peers = [ipaddress.ip_network(peer) for peer in pbx.fastagi_peers]
    known = any(address in peer for peer in peers if peer.version == address.version) if address else any(not peer.is_loopback for peer in peers)
    yield Check(name, known, "" if known else f"fastagi_peers does not name {pbx.host}: it will be refused; add its address as it arrives here")


def _recordings(enterprise: Enterprise, pbx: Pbx, source: DirectoryRecordings) -> Check:
    name, path = f"{enterprise.number} pbx {pbx.name} recordings", Path(source.path)
    if not path.is_dir():
        return Check(name, False, f"there is no directory {path}: mount it, or mend pbxs[].recordings.path")
    if not os.access(path, os.R_OK | os.X_OK):
        return Check(name, False, f"{path} cannot be read by this user: open it for the service's group")
    return Check(name, True, str(path))


def _extensions(enterprise: Enterprise, pbx: Pbx) -> Check:
    """Phones that the pattern does not know are still extensions; a line that it takes for an extension makes outside calls internal."""
    view = enterprise.view(pbx)
    taken = [line.number for line in enterprise.lines if view.is_extension(line.number)]
    told = f"internal_number {pbx.internal_number} takes the line {', '.join(taken)} for an extension: narrow it"
    return Check(f"{enterprise.number} pbx {pbx.name} numbers", not taken, told if taken else "")


def _is_outside(settings: IntegrationSettings) -> bool:
    """Whether a CRM's address is in the internet: a lab's or an on-premises one is http or a private address."""
    urls = [value for value in dict(settings).values() if isinstance(value, str) and value.startswith("https://")]
    return any(not _is_local(urlsplit(url).hostname or "") for url in urls)


def _is_local(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and (address.is_loopback or address.is_unspecified))


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
