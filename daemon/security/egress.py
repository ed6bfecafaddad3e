"""Where the daemon may connect to on a CRM's behalf. The check is made on the address itself, after DNS.

`ipaddress.is_global` is wrong for NAT64, 6to4, multicast and some ranges that were given out later or retired: those are named here.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# 192.0.0.0/24 and 168.63.129.16 are where two clouds keep what is for the machine itself; the rest: IANA's special registries.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in ("224.0.0.0/4", "192.88.99.0/24", "192.0.0.0/24", "168.63.129.16/32", "2001::/23", "2001:db8::/32", "3fff::/20", "2620:4f:8000::/48")
)
_UNICAST = ipaddress.ip_network("2000::/3")  # whatever else IPv6 has is translated, local, multicast or not given to anybody
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_6TO4 = ipaddress.ip_network("2002::/16")


class EgressDenied(OSError):
    """The address is not one that a CRM may have."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"connections to {address} are not allowed")


class EgressPolicy:
    """Public addresses, and the networks that the operator allows besides (labs, on-premises portals)."""

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._allow: tuple[Network, ...] = tuple(ipaddress.ip_network(text.strip(), strict=False) for text in allow if text.strip())

    def covers(self, address: Address) -> bool:
        """Whether the operator's list names this address."""
        return any(address in network for network in self._allow if network.version == address.version)

    def permits(self, text: str, *, plain: bool = False) -> bool:
        """Whether a connection to this literal address may be made; `plain`: for http, only what is listed."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        address = _unwrapped(address)
        if self.covers(address):
            return True
        if plain or not address.is_global or (address.version == 6 and address not in _UNICAST):
            return False
        return not any(address in network for network in _NEVER if network.version == address.version)

    def problem_with(self, url: str) -> str | None:
        """What is wrong with a CRM's URL as far as it can be told without DNS, or None."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return "not a URL"
        if parts.scheme not in ("https", "http") or not host:
            return "must start with https://"
        if parts.username or parts.password:
            return "must not carry a user name or password"
        if any(character.isspace() or ord(character) < 33 for character in url):
            return "must not contain spaces or control characters"
        literal = _literal(host)
        if parts.scheme == "http" and not (self._allow and (literal is None or self.permits(literal, plain=True))):
            return "must be https (plain http only for addresses in VOCHID_EGRESS_ALLOW)"
        if literal is not None and not self.permits(literal):
            return "is a private or special address, which VOCHID_EGRESS_ALLOW does not cover"
        if port not in (None, 443) and not (self._allow and (literal is None or self.permits(literal, plain=True))):
            return "must use port 443 (other ports only for addresses in VOCHID_EGRESS_ALLOW)"
        return None

    def socket_factory(self, *, plain: bool) -> Any:
        """For aiohttp's TCPConnector: makes the socket for an address that DNS gave, or raises EgressDenied."""

        def make(info: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, address = info
            if not self.permits(str(address[0]), plain=plain):
                raise EgressDenied(str(address[0]))
            made = socket.socket(family, kind, protocol)
            made.setblocking(False)
            return made

        return make


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _6TO4:
            return ipaddress.IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    return address


def _literal(host: str) -> str | None:
    """The address that a host name is, in any spelling that resolvers take (0x7f.1, 2130706433); None for a real name."""
    host = unicodedata.normalize("NFKC", host).lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(ipaddress.IPv4Address(socket.inet_aton(host)))
    except (OSError, UnicodeError):
        return None
