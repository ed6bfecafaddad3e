"""The portal's telephony methods, as documented and as seen (docs/adapters/bitrix24.md)."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from lab.crm.bitrix24_data import REGISTRATION_LIVES_S, Params, PortalCall, RestError, digits

if TYPE_CHECKING:
    from lab.crm.bitrix24 import Bitrix24Sandbox

STATUS_CODES = ("200", "304", "603", "603-S", "403", "404", "486", "484", "503", "480", "402", "423", "OTHER")
_PHONE = re.compile(r"\+?[0-9 ()-]{1,25}")
Method = Callable[[Params], Awaitable[Any]]


class Telephony:
    """Methods of one portal."""

    def __init__(self, box: Bitrix24Sandbox) -> None:
        self._box = box
        self.methods: dict[str, Method] = {
            "telephony.externalcall.register": self._register, "telephony.externalcall.finish": self._finish,
            "telephony.externalcall.show": self._show, "telephony.externalcall.hide": self._hide,
            "telephony.externalcall.searchcrmentities": self._search, "telephony.externalcall.attachrecord": self._attach,
            "telephony.externalline.add": self._line_add, "telephony.externalline.get": self._line_get,
            "telephony.externalline.update": self._line_update, "telephony.externalline.delete": self._line_delete,
            "voximplant.statistic.get": self._statistics,
        }  # fmt: skip

    def _wrong(self, text: str) -> RestError:
        return RestError(400, "ERROR_CORE" if self._box.switches.error_core else "", text)

    def _user(self, params: Params) -> str:
        user_id, phone = params.text("USER_ID"), params.text("USER_PHONE_INNER")
        if not user_id and not phone:
            raise self._wrong("USER_ID or USER_PHONE_INNER should be set")
        user = self._box.data.users.get(user_id) if user_id else self._box.data.user_by_phone(phone)
        if user is None or not user.is_active:
            raise self._wrong("User is not found or is not active")
        return user.id

    async def _register(self, params: Params) -> Any:
        data, user = self._box.data, self._user(params)
        phone, kind = params.text("PHONE_NUMBER"), params.text("TYPE")
        if not _PHONE.fullmatch(phone) or not digits(phone):
            raise self._wrong("Unsupported phone number format")
        if kind not in ("1", "2", "3", "4", "5"):
            raise self._wrong("Unknown TYPE")
        started = params.text("CALL_START_DATE")
        if started and not _is_iso(started):
            raise self._wrong("CALL_START_DATE should be in the ISO-8601 format")
        line, external = params.text("LINE_NUMBER"), params.text("EXTERNAL_CALL_ID")
        call = self._same(user, phone, int(kind), line, external)
        if call is None:
            call = PortalCall(data.new_call_id(), user, phone, int(kind), line, external, time.monotonic(), started)
            data.calls[call.id] = call
            self._bind(call, params)
        if params.flag("SHOW", True):
            call.show([user])
        entity = {"CRM_ENTITY_TYPE": call.entity[0] if call.entity else None, "CRM_ENTITY_ID": call.entity[1] if call.entity else None}
        made = [{"ENTITY_TYPE": call.entity[0], "ENTITY_ID": call.entity[1]}] if call.made and call.entity else []
        return {"CALL_ID": call.id, "CRM_CREATED_LEAD": made[0]["ENTITY_ID"] if made else None, "CRM_CREATED_ENTITIES": made, **entity}

    def _same(self, *key: Any) -> PortalCall | None:
        now = time.monotonic()
        for call in self._box.data.calls.values():
            is_young = now - call.at < REGISTRATION_LIVES_S
            if call.row is None and not call.by_portal and is_young and (call.user, call.phone, call.kind, call.line, call.external_id) == key:
                return call
        return None

    def _bind(self, call: PortalCall, params: Params) -> None:
        data = self._box.data
        kind, entity_id = params.text("CRM_ENTITY_TYPE").upper(), params.text("CRM_ENTITY_ID")
        found = data.find_entities(call.phone)
        if kind and entity_id:
            call.entity = (kind, int(entity_id))
        elif found:
            call.entity = (found[0].kind, found[0].id)
        elif params.flag("CRM_CREATE", False):
            lead = data.add_entity("LEAD", call.phone, [call.phone], call.user)
            call.entity, call.made = ("LEAD", lead.id), True

    async def _finish(self, params: Params) -> Any:
        call_id = params.get("CALL_ID")
        if not isinstance(call_id, str) or not call_id:
            raise RestError(400, "INVALID_ARGUMENT", "CALL_ID must be a string")
        user = self._user(params)
        call = self._box.data.calls.get(call_id)
        if call is None or call.row is not None:
            raise self._wrong("Call is not found (call should be registered prior to finishing")
        duration = int(params.text("DURATION") or 0)
        status = params.text("STATUS_CODE") or ("200" if duration > 0 else "304")
        if status not in STATUS_CODES:
            raise self._wrong(f"unknown STATUS_CODE {status}")  # the portal would keep it; an adapter should not send it
        call.cards.clear()
        if call.made and call.entity:
            self._box.data.entities[call.entity].assigned = user
        call.row = {
            "ID": str(self._box.data.new_id()), "PORTAL_USER_ID": user, "PORTAL_NUMBER": call.line, "PHONE_NUMBER": digits(call.phone), "CALL_ID": call.id,
            "EXTERNAL_CALL_ID": call.external_id, "CALL_CATEGORY": "external", "CALL_DURATION": str(duration), "CALL_START_DATE": call.started,
            "CALL_RECORD_URL": "", "CALL_FAILED_CODE": status, "CALL_FAILED_REASON": params.text("FAILED_REASON"),
            "CRM_ENTITY_TYPE": call.entity[0] if call.entity else None, "CRM_ENTITY_ID": str(call.entity[1]) if call.entity else None,
            "CRM_ACTIVITY_ID": str(self._box.data.new_id()), "CALL_TYPE": str(call.kind), "RECORD_FILE_ID": None,
        }  # fmt: skip
        return {
            "CALL_ID": call.id, "EXTERNAL_CALL_ID": call.external_id, "PORTAL_USER_ID": int(user), "PHONE_NUMBER": digits(call.phone),
            "PORTAL_NUMBER": call.line, "INCOMING": str(call.kind), "CALL_DURATION": duration, "CALL_START_DATE": {}, "CALL_STATUS": int(status == "200"),
            "CALL_VOTE": 0, "COST": 0, "COST_CURRENCY": "", "CALL_FAILED_CODE": status, "CALL_FAILED_REASON": params.text("FAILED_REASON"),
            "REST_APP_ID": "3", "REST_APP_NAME": "sandbox", "CRM_ACTIVITY_ID": int(call.row["CRM_ACTIVITY_ID"]), "COMMENT": None,
            "CRM_ENTITY_TYPE": call.entity[0] if call.entity else None, "CRM_ENTITY_ID": call.entity[1] if call.entity else None, "ID": int(call.row["ID"]),
        }  # fmt: skip

    async def _show(self, params: Params) -> Any:
        call = self._open_call(params)
        if call is not None:
            call.show(self._known_users(params))
        return call is not None

    async def _hide(self, params: Params) -> Any:
        call = self._open_call(params)
        if call is not None:
            call.cards -= set(self._known_users(params))
        return call is not None

    def _open_call(self, params: Params) -> PortalCall | None:
        call = self._box.data.calls.get(params.text("CALL_ID"))
        return call if call is not None and call.row is None else None

    def _known_users(self, params: Params) -> list[str]:
        return [user for user in params.ids("USER_ID") if user in self._box.data.users]

    async def _search(self, params: Params) -> Any:
        phone = params.text("PHONE_NUMBER")
        if not phone:
            raise self._wrong("PHONE_NUMBER is empty")
        found = []
        for entity in self._box.data.find_entities(phone):
            user = self._box.data.users.get(entity.assigned)
            manager = {
                "ID": entity.assigned, "TIMEMAN_STATUS": user.workday if user else "UNAVAILABLE", "USER_PHONE_INNER": (user.phone if user else None) or "",
                "WORK_PHONE": "", "PERSONAL_PHONE": "", "PERSONAL_MOBILE": "",
            }  # fmt: skip
            found.append(
                {
                    "CRM_ENTITY_TYPE": entity.kind,
                    "CRM_ENTITY_ID": entity.id,
                    "ASSIGNED_BY_ID": int(entity.assigned),
                    "NAME": entity.name,
                    "ASSIGNED_BY": manager,
                }
            )
        return found

    # -- records ----------------------------------------------------------------------------------------------------------------

    async def _attach(self, params: Params) -> Any:
        name, url, content = params.text("FILENAME"), params.text("RECORD_URL"), params.get("FILE_CONTENT")
        if not name and not url:
            raise self._wrong("Required parameters are not set. Request should contain or URL or FILENAME parameter")
        call = self._box.data.calls.get(params.text("CALL_ID"))
        if call is None or call.row is None:
            raise self._wrong("Call is not found in the statistic table. Looks like it is not finished yet.")
        file_name = name or urlsplit(url).path.rpartition("/")[2]
        if not file_name:
            raise self._wrong("File name is empty")
        if file_name.rpartition(".")[2].lower() not in ("wav", "mp3"):
            raise self._wrong("Wrong file extension. Only wav and mp3 are allowed")
        if url:
            await self._fetch(url)
        elif content is None:
            token = secrets.token_hex(8)
            self._box.data.uploads[token] = call.id
            return {"uploadUrl": f"{self._box.url}/rest/upload.json?token={token}", "fieldName": "file"}
        else:
            self._check_content(content)
        return self._keep_record(call, url or file_name)

    def _check_content(self, content: Any) -> None:
        if not content:
            raise self._wrong("File content is empty.")
        try:
            base64.b64decode(str(content), validate=True)
        except (binascii.Error, ValueError):
            raise self._wrong("File content is not properly encoded. Base64 encoding is expected.") from None

    async def _fetch(self, url: str) -> None:
        if not self._box.switches.fetch_records:
            return
        try:
            async with aiohttp.ClientSession(trust_env=False) as session, session.get(url) as answer:
                status, size = answer.status, len(await answer.read())
        except (aiohttp.ClientError, OSError):
            status, size = 0, 0
        if status != 200:
            raise self._wrong(f"Server returns HTTP error code {status}")
        if not size:
            raise self._wrong("File content is empty.")

    def _keep_record(self, call: PortalCall, record: str) -> Any:
        assert call.row is not None
        call.record, call.row["RECORD_FILE_ID"] = record, str(self._box.data.new_id())
        call.row["CALL_RECORD_URL"] = record
        return {"FILE_ID": int(call.row["RECORD_FILE_ID"])}

    def uploaded(self, token: str, name: str) -> Any:
        """The second step of attachRecord by FILENAME alone."""
        call = self._box.data.calls.get(self._box.data.uploads.pop(token, ""))
        if call is None:
            raise RestError(400, "ERROR_CORE", "upload token is not known")
        return self._keep_record(call, name)

    # -- lines, statistics ---------------------------------------------------------------------------------------------------------

    async def _line_add(self, params: Params) -> Any:
        number = params.text("NUMBER")
        if not number:
            raise self._wrong("NUMBER should not be empty")
        if number in self._box.data.lines:
            raise self._wrong("Line already exists")
        line = {"ID": self._box.data.new_id(), "NAME": params.text("NAME"), "CRM_AUTO_CREATE": params.text("CRM_AUTO_CREATE") or "Y"}
        self._box.data.lines[number] = line
        return {"ID": line["ID"]}

    async def _line_get(self, _: Params) -> Any:
        lines = self._box.data.lines.items()
        return [{"NUMBER": number, "NAME": line["NAME"], "CRM_AUTO_CREATE": line["CRM_AUTO_CREATE"]} for number, line in lines]

    async def _line_update(self, params: Params) -> Any:
        line = self._line(params)
        changes = {key: params.text(key) for key in ("NAME", "CRM_AUTO_CREATE") if params.get(key) is not None}
        if not changes:
            raise self._wrong("There are no fields to update")
        line.update(changes)
        return {"ID": str(line["ID"])}

    async def _line_delete(self, params: Params) -> Any:
        self._line(params)
        del self._box.data.lines[params.text("NUMBER")]
        return []

    def _line(self, params: Params) -> dict[str, Any]:
        line: dict[str, Any] | None = self._box.data.lines.get(params.text("NUMBER"))
        if line is None:
            raise self._wrong(f"Could not find line with number {params.text('NUMBER')}")
        return line

    async def _statistics(self, params: Params) -> Any:
        if self._box.switches.statistics_denied:
            raise RestError(403, "ACCESS_DENIED", "Access denied!")
        rows = [call.row for call in self._box.data.finished() if call.row]
        wanted = params.get("FILTER", {})
        for key, value in wanted.items() if isinstance(wanted, dict) else ():
            operator = re.match(r"[!<>=?%]*", key)
            sign = operator[0] if operator else ""
            rows = [row for row in rows if _fits(sign, str(row.get(key[len(sign) :].upper()) or ""), str(value))]
        if params.text("ORDER").upper() == "DESC":
            rows.reverse()
        return self._box.page(rows, params)


def _fits(sign: str, have: str, want: str) -> bool:
    if sign in (">", "<", ">=", "<="):
        left, right = (float(have or 0), float(want)) if want.replace(".", "").isdigit() else (have, want)
        return {">": left > right, "<": left < right, ">=": left >= right, "<=": left <= right}[sign]  # type: ignore[operator]
    return (have != want) if sign == "!" else (want in have) if sign in ("?", "%") else have == want


def _is_iso(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
