"""A CRM that is everything RetailCRM is not: it hands out an id when a call is registered, wants it back at the end, loses
its token halfway, and takes a second `finish` for a second call. And the adapter for it, which keeps no state at all.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, ClassVar

from aiohttp import web
from pydantic import Field

from adapters.base import Connection, Tenant
from adapters.http import OverLimit, Response, Unanswered, Unreachable
from daemon.model.call import Direction
from daemon.model.delivery import (
    Ambiguous,
    AuthExpired,
    Check,
    Delivered,
    Delivery,
    Kind,
    Outcome,
    Planned,
    Policy,
    Priority,
    Rate,
    Rejected,
    Retry,
    Throttled,
)
from daemon.model.integration import CrmUrl, IntegrationSettings
from daemon.model.signal import CallChange, Ended, Ringing


class StatefulCrm:
    """The CRM: POST /register, /finish, GET /find; a bearer token that /token renews once."""

    def __init__(self) -> None:
        self.token = "first"
        self.refreshes = 0
        self.registered: dict[str, str] = {}
        self.finished: list[str] = []
        self.swallow_next_answer = False
        self.expire_after: int | None = None
        self.may_refresh = True
        self._requests = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        application = web.Application()
        application.router.add_post("/register", self._register)
        application.router.add_post("/finish", self._finish)
        application.router.add_get("/find", self._find)
        application.router.add_post("/token", self._renew)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    def _authorised(self, request: web.Request) -> bool:
        self._requests += 1
        if self.expire_after is not None and self._requests > self.expire_after:
            self.token, self.expire_after = secrets.token_hex(4), None
        return request.headers.get("Authorization") == f"Bearer {self.token}"

    async def _register(self, request: web.Request) -> web.StreamResponse:
        if not self._authorised(request):
            return web.json_response({"error": "expired_token"}, status=401)
        external = (await request.post())["external"]
        crm_id = self.registered.setdefault(str(external), f"crm-{len(self.registered) + 1}")
        return web.json_response({"call_id": crm_id})

    async def _finish(self, request: web.Request) -> web.StreamResponse:
        if not self._authorised(request):
            return web.json_response({"error": "expired_token"}, status=401)
        crm_id = str((await request.post()).get("call_id"))
        if crm_id not in self.registered.values():
            return web.json_response({"error": "Call is not found"}, status=400)
        self.finished.append(crm_id)
        if self.swallow_next_answer:
            self.swallow_next_answer = False
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"result": True})

    async def _find(self, request: web.Request) -> web.StreamResponse:
        if not self._authorised(request):
            return web.json_response({"error": "expired_token"}, status=401)
        return web.json_response({"finished": request.query["call_id"] in self.finished})

    async def _renew(self, request: web.Request) -> web.StreamResponse:
        if not self.may_refresh:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.refreshes += 1
        return web.json_response({"token": self.token})


class StatefulSettings(IntegrationSettings):
    url: CrmUrl
    first_token: str = Field(default="first")


class Stateful:
    """The adapter."""

    name: ClassVar[str] = "stateful"
    title: ClassVar[str] = "Stateful"
    settings: ClassVar[type[IntegrationSettings]] = StatefulSettings
    policy: ClassVar[Policy] = Policy(
        deadline_s={Kind.POPUP: 1.0, Kind.JOURNAL: 1.0}, batch={}, repeatable=frozenset({Kind.POPUP}), rates={"all": Rate(50, 1.0)}, concurrency=4
    )

    def account(self, settings: StatefulSettings) -> str:
        return settings.url

    def plan(self, change: CallChange, settings: StatefulSettings, tenant: Tenant) -> Sequence[Planned]:
        if change.call.direction is Direction.INTERNAL:
            return ()
        planned = []
        for signal in change.signals:
            if isinstance(signal, Ringing):
                planned.append(Planned(Kind.POPUP, f"popup:{change.call.id}:{'+'.join(signal.extensions)}:{change.at:.3f}", {}, Priority.POPUP, 30.0))
            if isinstance(signal, Ended):
                planned.append(Planned(Kind.JOURNAL, f"journal:{change.call.id}", {}, Priority.JOURNAL))
        return planned

    async def deliver(self, connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        return [await self._one(connection, delivery) for delivery in batch]

    async def _one(self, connection: Connection, delivery: Delivery) -> Outcome:
        if delivery.kind is Kind.POPUP:
            answer = await self._ask(connection, "POST", "register", form={"external": delivery.call.id})
            return Delivered(memory={"call_id": answer.json()["call_id"]}) if isinstance(answer, Response) else answer
        crm_id = delivery.memory.get("call_id")
        if crm_id is None:  # nobody rang: it is registered now
            answer = await self._ask(connection, "POST", "register", form={"external": delivery.call.id})
            if not isinstance(answer, Response):
                return answer
            crm_id = answer.json()["call_id"]
        answer = await self._ask(connection, "POST", "finish", form={"call_id": crm_id})
        return Delivered(memory={"call_id": crm_id}) if isinstance(answer, Response) else answer

    async def reconcile(self, connection: Connection, delivery: Delivery) -> Outcome:
        crm_id = delivery.memory.get("call_id")
        if crm_id is None:
            return Retry("it was never registered", after_s=0)
        answer = await self._ask(connection, "GET", "find", query={"call_id": crm_id})
        if not isinstance(answer, Response):
            return answer
        return Delivered("it had arrived") if answer.json()["finished"] else Retry("it had not arrived", after_s=0)

    async def refresh(self, connection: Connection) -> bool:
        async with connection.tokens.lock():
            answer = await self._ask(connection, "POST", "token")
            if not isinstance(answer, Response):
                return False
            await connection.tokens.save({"token": answer.json()["token"]})
        return True

    async def check(self, connection: Connection) -> Sequence[Check]:
        answer = await self._ask(connection, "GET", "find", query={"call_id": "none"})
        return [Check("credentials", isinstance(answer, Response), "" if isinstance(answer, Response) else str(answer), "first_token")]

    async def _ask(self, connection: Connection, method: str, path: str, **more: Any) -> Response | Outcome:
        tokens = await connection.tokens.load() or {"token": connection.settings.first_token}
        headers = {"Authorization": f"Bearer {tokens['token']}"}
        try:
            answer = await connection.http.request(method, f"{connection.settings.url}/{path}", bucket="all", headers=headers, **more)
        except Unreachable as error:
            return Retry(str(error))
        except Unanswered as error:
            return Ambiguous(str(error))
        except OverLimit as error:
            return Throttled(str(error), error.after_s)
        if answer.status == 401:
            return AuthExpired("expired_token")
        if answer.status >= 500:
            return Retry(str(answer.status))
        return answer if answer.status == 200 else Rejected(answer.text)
