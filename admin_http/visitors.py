"""Where a request really comes from, and whether a cookie may go back over that way."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from aiohttp import web

from admin_http.problems import Forbidden
from daemon.people.service import Visitor

THEMES = ("auto", "light", "dark")
_LOOPBACK_NAMES = ("localhost", "localhost.")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Way:
    """One request's way here: the client's address, the scheme and host that its browser sees."""

    address: str
    scheme: str
    host: str

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    @property
    def takes_cookies(self) -> bool:
        """https anywhere, plain http on this machine only."""
        return self.is_secure or (_is_loopback(self.address) and _is_loopback(_host_name(self.host)))

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"

    def cookie(self, name: str) -> str:
        """The cookie's name on this way: __Host- binds it to this host, https and no subdomain."""
        return f"__Host-{name}" if self.is_secure else name


def parse_networks(texts: list[str]) -> tuple[Network, ...]:
    """Addresses and networks of a setting."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def way_of(request: web.Request, trusted: tuple[Network, ...]) -> Way:
    """X-Forwarded-* count from trusted proxies only, and of a chain of addresses the last that no trusted proxy put there."""
    address, scheme, host = request.remote or "", "http", request.headers.get("Host", "")
    if _is_trusted(address, trusted):
        chain = [part.strip() for part in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",") if part.strip()]
        address = next((hop for hop in reversed(chain) if not _is_trusted(hop, trusted)), chain[0] if chain else address)
        scheme = _last(request, "X-Forwarded-Proto") or scheme
        host = _last(request, "X-Forwarded-Host") or host
    return Way(address[:64], "https" if scheme.lower() == "https" else "http", host.lower()[:255])


def visitor_of(request: web.Request, way: Way) -> Visitor:
    """Who knocks, for the login. IPv6 addresses count by their /64: one household has 2^64 of them."""
    address = way.address
    try:
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
            address = str(ipaddress.ip_network((parsed, 64), strict=False))
    except ValueError:
        address = "unknown"
    return Visitor(address, request.headers.get("User-Agent", "")[:200], request.cookies.get(way.cookie("vochid_device"), ""))


def must_be_own_page(request: web.Request, way: Way) -> None:
    """Raises Forbidden for a change that another site's page asks for. Programs that are no browser send neither header."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    foreign = site not in ("same-origin", "none") if site is not None else origin is not None and origin.lower() != way.origin
    if foreign:
        raise Forbidden("this request came from another site's page", code="cross_site")


def _last(request: web.Request, name: str) -> str:
    return request.headers.get(name, "").split(",")[-1].strip()


def _is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted if network.version == parsed.version)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in _LOOPBACK_NAMES


def _host_name(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
