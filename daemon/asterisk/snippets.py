"""`vochid enterprise show N --asterisk` and the page of a PBX: asterisk-conf/ filled in for one enterprise. No secret is printed: whoever set the
manager's password knows it, and what was stored is write-only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from daemon.settings import Listen
from daemon.tenants.document import Enterprise, Pbx

SHIPPED = Path(__file__).resolve().parent.parent.parent / "asterisk-conf"
ANYWHERE = ("0.0.0.0", "::")
PLACEHOLDER = "ADDRESS-OF-VOCHID"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A text for one place on a PBX."""

    place: str
    text: str


def snippets(enterprise: Enterprise, fastagi: Listen) -> str:
    """What to put where, PBX by PBX, as one text."""
    return "\n".join(_as_text(enterprise, pbx, fastagi) for pbx in enterprise.pbxs)


def snippets_of(enterprise: Enterprise, pbx: Pbx, fastagi: Listen) -> list[Snippet]:
    """What to put where on one PBX, in order."""
    address, shown_host = _addresses(pbx, fastagi)
    return [
        Snippet("manager.d/vochid.conf", _manager(pbx, address)),
        Snippet("vochid-secret.conf, mode 0640", "secret = THE-SECRET-OF-THIS-PBX-IN-THE-DOCUMENT\n"),
        Snippet("extensions.conf, in [globals]", f"VOCHID_FASTAGI = {shown_host}:{fastagi.port}\nVOCHID_RING = 15\n"),
        Snippet(f"extensions.conf, in [{pbx.inbound_contexts[0] if pbx.inbound_contexts else 'from-trunk'}]", _lines(enterprise)),
        Snippet("extensions.d/vochid.conf", (SHIPPED / "extensions.d/vochid.conf").read_text()),
    ]


def unreachable(pbx: Pbx, fastagi: Listen) -> bool:
    """Whether vochid listens for FastAGI where this PBX cannot reach it."""
    return not _is_local(pbx) and fastagi.host in ("127.0.0.1", "::1", "localhost")


def _as_text(enterprise: Enterprise, pbx: Pbx, fastagi: Listen) -> str:
    first, *rest = snippets_of(enterprise, pbx, fastagi)[:-1]  # the last stands in asterisk-conf/ as it is
    parts = [_file(f"PBX {pbx.name} of enterprise {enterprise.number}: {first.place}", first.text), *(_file(one.place, one.text) for one in rest)]
    if unreachable(pbx, fastagi):
        parts.insert(
            0, f"; vochid listens for FastAGI on {fastagi} alone: set VOCHID_FASTAGI to an address that {pbx.host} reaches, and fastagi_peers to its network.\n"
        )
    return "\n".join(parts)


def _is_local(pbx: Pbx) -> bool:
    return pbx.host in ("127.0.0.1", "::1", "localhost")


def _addresses(pbx: Pbx, fastagi: Listen) -> tuple[str, str]:
    """vochid's address for manager.conf, and the one of its FastAGI listener as a dialplan writes it."""
    address = "127.0.0.1" if _is_local(pbx) else PLACEHOLDER
    host = fastagi.host if _is_local(pbx) and fastagi.host not in ANYWHERE else address
    return address, f"[{host}]" if ":" in host else host


def _manager(pbx: Pbx, address: str) -> str:
    text = (SHIPPED / "manager.d/vochid.conf").read_text().replace("[vochid]", f"[{pbx.username}]")
    if address != "127.0.0.1":
        text = text.replace("permit = 127.0.0.1/255.255.255.255", f"permit = {address}/255.255.255.255")
    if pbx.allow_redirect:
        text = re.sub(r"^write = originate,reporting\n; (write = originate,reporting,call).*\n", r"\1\n", text, flags=re.MULTILINE)
    return text


def _lines(enterprise: Enterprise) -> str:
    if not enterprise.lines:
        return "; the document names no lines\n"
    return "".join(
        f"exten => {line.number},1,Gosub(vochid-record,s,1)\n"
        f" same => n,Gosub(vochid-smart-redirect,s,1({enterprise.number},${{EXTEN}}))\n"
        " same => n,Goto(YOUR-NORMAL-ROUTE,${EXTEN},1)\n"
        for line in enterprise.lines
    )


def _file(title: str, text: str) -> str:
    return f"; ==== {title}\n{text}"
