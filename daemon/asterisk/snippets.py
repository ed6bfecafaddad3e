"""`vochid enterprise show N --asterisk`: asterisk-conf/ filled in for one enterprise. No secret is printed: whoever set the
manager's password knows it, and what was stored is write-only."""

from __future__ import annotations

import re
from pathlib import Path

from daemon.settings import Listen
from daemon.tenants.document import Enterprise, Pbx

SHIPPED = Path(__file__).resolve().parent.parent.parent / "asterisk-conf"
ANYWHERE = ("0.0.0.0", "::")
PLACEHOLDER = "ADDRESS-OF-VOCHID"


def snippets(enterprise: Enterprise, fastagi: Listen) -> str:
    """What to put where, PBX by PBX."""
    return "\n".join(_for_pbx(enterprise, pbx, fastagi) for pbx in enterprise.pbxs)


def _for_pbx(enterprise: Enterprise, pbx: Pbx, fastagi: Listen) -> str:
    is_local = pbx.host in ("127.0.0.1", "::1", "localhost")
    address = "127.0.0.1" if is_local else PLACEHOLDER
    host = fastagi.host if is_local and fastagi.host not in ANYWHERE else address
    shown_host = f"[{host}]" if ":" in host else host
    parts = [
        _file(f"PBX {pbx.name} of enterprise {enterprise.number}: manager.d/vochid.conf", _manager(pbx, address)),
        _file("vochid-secret.conf, mode 0640", "secret = THE-SECRET-OF-THIS-PBX-IN-THE-DOCUMENT\n"),
        _file("extensions.conf, in [globals]", f"VOCHID_FASTAGI = {shown_host}:{fastagi.port}\nVOCHID_RING = 15\n"),
        _file(f"extensions.conf, in [{pbx.inbound_contexts[0] if pbx.inbound_contexts else 'from-trunk'}]", _lines(enterprise)),
    ]
    if not is_local and (fastagi.host in ("127.0.0.1", "::1", "localhost")):
        parts.insert(
            0, f"; vochid listens for FastAGI on {fastagi} alone: set VOCHID_FASTAGI to an address that {pbx.host} reaches, and fastagi_peers to its network.\n"
        )
    return "\n".join(parts)


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
