"""What one daemon has another do: place a click, redirect a call, tell of phones; and what changed for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from daemon.ami.actions import Redirect
from daemon.ami.link import LinkDown
from daemon.ami.wire import ActionError
from daemon.delivery.dispatcher import Dispatcher
from daemon.errors import VochidError
from daemon.lookup.service import Lookup
from daemon.nodes.asks import NoAnswer, NotTaken
from daemon.originate.service import OriginateService
from daemon.originate.states import Progress, State
from daemon.store.leases import Leases, PbxKey
from daemon.store.originates import OriginateRequest
from daemon.tenants.service import Tenants
from daemon.wiring.nodes import Nodes
from daemon.wiring.pbxs import Pbxs

PLACE, REDIRECT = "place", "redirect"
REDIRECT_DEADLINE_S = 2.0
MAX_NUMBERS = 200  # in one message; more, and all of that CRM is asked anew

Body = Mapping[str, Any]


class Elsewhere:
    """Both sides of it. `originate.service.Elsewhere` and `wiring.presence.Elsewhere` are this."""

    def __init__(self, nodes: Nodes, leases: Leases, tenants: Tenants, pbxs: Pbxs) -> None:
        self._nodes = nodes
        self._leases = leases
        self._tenants = tenants
        self._pbxs = pbxs
        nodes.asks.do(REDIRECT, self._redirect_here)

    # -- asking ------------------------------------------------------------------------------------------------------------------

    async def reader(self, key: PbxKey) -> str | None:
        """The other process that reads a PBX now; None when there is none."""
        return await self._leases.reader(key)

    async def place(self, reader: str, request: OriginateRequest, within_s: float) -> Progress:
        """Has it send what is reserved, at most once. Raises NotTaken, NoAnswer."""
        answer = await self._nodes.asks.have_done(reader, PLACE, {"enterprise": request.enterprise, "request": request.id}, within_s)
        return Progress(State(answer["state"]), answer["code"], answer["reason"])

    def read_elsewhere(self, enterprise: str) -> set[str]:
        """The enterprise's PBXs that another daemon reads."""
        return self._leases.read_elsewhere(enterprise)

    async def ask(self, kind: str, body: Body, is_enough: Callable[[list[Body]], bool], within_s: float) -> list[Body]:
        """What the others answer, until it is enough or the time is up."""
        return await self._nodes.asks.ask(kind, body, is_enough, within_s)

    def answer(self, kind: str, how: Callable[[Body], Awaitable[Body | None]]) -> None:
        """How such questions are answered here."""
        self._nodes.asks.answer(kind, how)

    async def redirect(self, key: PbxKey, channel: str, extension: str) -> None:
        """Sends a live call to an extension, through whichever daemon reads its PBX; once. Raises VochidError."""
        if self._pbxs.link(key) is not None or (reader := await self.reader(key)) is None:
            problem = await self._redirect(key, channel, extension)
        else:
            body = {"enterprise": key[0], "pbx": key[1], "channel": channel, "extension": extension}
            try:
                problem = (await self._nodes.asks.have_done(reader, REDIRECT, body, REDIRECT_DEADLINE_S)).get("problem")
            except NotTaken:
                problem = ["pbx_down", "not connected"]
            except NoAnswer:
                problem = ["pbx_down", "no answer from the daemon that reads it"]
        if problem is not None:
            raise VochidError(f"the call was not redirected: PBX {key[1]}: {problem[1]}", code=problem[0])

    # -- doing -------------------------------------------------------------------------------------------------------------------

    def places(self, service: OriginateService) -> None:
        """Clicks that other daemons took for PBXs that are read here."""

        async def place(body: Body) -> Body:
            progress = await service.place_reserved(str(body["enterprise"]), str(body["request"]))
            return {"state": str(progress.state), "code": progress.code, "reason": progress.reason}

        self._nodes.asks.do(PLACE, place)

    async def _redirect_here(self, body: Body) -> Body:
        return {"problem": await self._redirect((str(body["enterprise"]), str(body["pbx"])), str(body["channel"]), str(body["extension"]))}

    async def _redirect(self, key: PbxKey, channel: str, extension: str) -> list[str] | None:
        """Code and words of what went wrong."""
        tenancy, link = self._tenants.get(key[0]), self._pbxs.link(key)
        settings = next((pbx for pbx in tenancy.enterprise.pbxs if pbx.name == key[1]), None) if tenancy is not None else None
        if settings is None or not settings.allow_redirect:
            return ["redirect_refused", "allow_redirect is off"]
        try:
            if link is None:
                raise LinkDown("not connected")
            answer = await link.request(Redirect(channel, settings.internal_context, extension), REDIRECT_DEADLINE_S)
        except (LinkDown, ActionError) as error:
            return ["pbx_down", str(error)]
        return None if answer.ok else ["redirect_refused", answer.message or "refused"]


class Everywhere:
    """What one daemon was told and all must heed: a CRM's customers changed, a manager's status, credentials that work again."""

    def __init__(self, nodes: Nodes, lookup: Lookup, dispatcher: Dispatcher) -> None:
        self._post = nodes.post
        self._lookup = lookup
        self._dispatcher = dispatcher
        nodes.post.on("forget", lambda _, body: self._forget_here(body["enterprise"], body["source"], body["numbers"]))
        nodes.post.on("status", lambda _, body: lookup.status_changed(body["enterprise"], body["integration"]))
        nodes.post.on("cured", lambda _, body: dispatcher.settings_changed({body["enterprise"]}))

    def forget(self, enterprise: str, source: str | None, numbers: Sequence[str] | None) -> None:
        """What this source (None: all) said of these numbers (None: all) is asked anew."""
        self._forget_here(enterprise, source, numbers)
        told = list(numbers) if numbers is not None and len(numbers) <= MAX_NUMBERS else None
        self._post.say("forget", {"enterprise": enterprise, "source": source, "numbers": told})

    def status_changed(self, enterprise: str, integration: str) -> None:
        """A manager set another status; here it is known already."""
        self._post.say("status", {"enterprise": enterprise, "integration": integration})

    def cured(self, enterprise: str) -> None:
        """The enterprise's credentials may work again."""
        self._dispatcher.settings_changed({enterprise})
        self._post.say("cured", {"enterprise": enterprise})

    def _forget_here(self, enterprise: str, source: str | None, numbers: Sequence[str] | None) -> None:
        if source is None:
            self._lookup.settings_changed({enterprise})
        else:
            self._lookup.forget(enterprise, source, numbers)
