"""The admin's cookies. HttpOnly, SameSite=Lax, host-only; __Host- and Secure over https."""

from __future__ import annotations

from aiohttp import web

from admin_http.visitors import Way
from daemon.people.service import DEVICE_LIVES_S, LIVES_S, Entered

PERSON, CABINET, DEVICE, CONSENT = "vochid", "vochid_cabinet", "vochid_device", "vochid_consent"


def put_cookie(response: web.StreamResponse, way: Way, name: str, value: str, lives_s: float) -> None:
    """Sets one. Lax, not Strict: a Strict one is not sent on the redirect that follows a link from the CRM."""
    response.set_cookie(way.cookie(name), value, max_age=int(lives_s), path="/", httponly=True, secure=way.is_secure, samesite="Lax")


def drop_cookie(response: web.StreamResponse, way: Way, name: str) -> None:
    response.del_cookie(way.cookie(name), path="/", secure=way.is_secure, httponly=True, samesite="Lax")


def put_entry(response: web.StreamResponse, way: Way, entered: Entered) -> None:
    """A person's new session, and the device that is known from now on."""
    put_cookie(response, way, PERSON, entered.token, LIVES_S)
    put_cookie(response, way, DEVICE, entered.device, DEVICE_LIVES_S)
