"""Keeps the device states of one PBX: events as they come, the lists after a login, a boot, a reload and once a minute. Thin shell.

The lists heal whatever was missed: a PBX whose manager.conf filters DeviceStateChange is a minute behind at most.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from daemon.ami.actions import CoreShowChannels, DeviceStateList, ExtensionStateList
from daemon.ami.devices import Devices
from daemon.ami.link import Link, LinkDown, LinkHandler
from daemon.ami.wire import Frame, Skipped
from daemon.supervisor import Supervisor

POLL_S = 60.0

log = structlog.get_logger()


class DeviceWatch:
    """A link's handler. `devices` is what others read."""

    def __init__(self, name: str, context: str) -> None:
        self._name = name
        self.devices = Devices(context)
        self.link: Link | None = None
        self._wanted = asyncio.Event()
        self._supervisor = Supervisor(f"devices {name}")
        self._may_list = True

    def start(self) -> None:
        """Starts asking."""
        self._supervisor.serve("lists", self._run)

    async def stop(self) -> None:
        await self._supervisor.stop()

    def on_ready(self, link: Link) -> None:
        self.link, self._may_list = link, True
        self._wanted.set()

    def on_event(self, frame: Frame, at: float) -> None:
        self.devices.feed(frame)
        if frame.event in ("FullyBooted", "Reload"):  # modules that answer the lists may come after the login; hints may have changed
            self._wanted.set()

    def on_unseen(self, skipped: Skipped) -> None:
        self._wanted.set()

    def on_down(self, reason: str) -> None:
        self.link = None
        self.devices.forget()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), POLL_S)
            self._wanted.clear()
            if self.link is not None:
                with contextlib.suppress(LinkDown):  # it comes back, and then all is asked again
                    await self._ask(self.link)

    async def _ask(self, link: Link) -> None:
        for action, take in (
            (DeviceStateList(), self.devices.set_states),
            (ExtensionStateList(), self.devices.set_hints),
            (CoreShowChannels(), self.devices.set_channels),
        ):
            answer = await link.request(action)
            if answer.ok:
                take(answer.items)
            elif self._may_list:
                log.warning("the PBX does not tell device states", pbx=self._name, action=action.name, reason=answer.message)
                self._may_list = False


class Together:
    """Several handlers on one link, in order."""

    def __init__(self, *handlers: LinkHandler) -> None:
        self._handlers = handlers

    def on_ready(self, link: Link) -> None:
        for handler in self._handlers:
            handler.on_ready(link)

    def on_event(self, frame: Frame, at: float) -> None:
        for handler in self._handlers:
            handler.on_event(frame, at)

    def on_unseen(self, skipped: Skipped) -> None:
        for handler in self._handlers:
            handler.on_unseen(skipped)

    def on_down(self, reason: str) -> None:
        for handler in self._handlers:
            handler.on_down(reason)
