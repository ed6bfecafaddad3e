"""One daemon asks another. Questions change nothing and may get lost; what is to be done is a row that one daemon takes, once. Thin shell."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import structlog

from daemon.nodes.post import CHANNEL, Post
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics

TAKEN_WITHIN_S = 1.0  # who lives takes it in milliseconds
MAX_AT_WORK = 500

_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)

log = structlog.get_logger()
Body = Mapping[str, Any]
Answerer = Callable[[Body], Awaitable[Body | None]]


class NotTaken(Exception):
    """The other daemon did not take it and never will: nothing was done."""


class NoAnswer(Exception):
    """It was taken, or may have been, and no answer came in time: nobody knows."""


@dataclass(slots=True)
class _Open:
    """What this process waits for."""

    news: asyncio.Event = field(default_factory=asyncio.Event)
    taken: bool = False
    answers: list[Body] = field(default_factory=list)


class Asks:
    """Both sides: asks others, and answers them by what `answer` was told."""

    def __init__(self, db: Database, post: Post, *, taken_within_s: float = TAKEN_WITHIN_S) -> None:
        self._db = db
        self._post = post
        self._taken_within_s = taken_within_s
        self._open: dict[str, _Open] = {}
        self._questions: dict[str, Answerer] = {}
        self._deeds: dict[str, Answerer] = {}
        self._at_work = 0
        self._supervisor = Supervisor("asks")
        post.on("question", self._asked)
        post.on("deed", self._asked_to_do)
        post.on("taken", self._was_taken)
        post.on("answer", self._answered)

    def answer(self, kind: str, how: Answerer) -> None:
        """How questions of one kind are answered here; None: somebody else may know."""
        self._questions[kind] = how

    def do(self, kind: str, how: Answerer) -> None:
        """How deeds of one kind are done here; what it gives or raises is its end."""
        self._deeds[kind] = how

    async def stop(self) -> None:
        await self._supervisor.stop()

    async def ask(self, kind: str, body: Body, is_enough: Callable[[list[Body]], bool], within_s: float) -> list[Body]:
        """What the others answer, until it is enough or the time is up."""
        ask_id = uuid.uuid4().hex
        waiting = self._open[ask_id] = _Open()
        try:
            self._post.say("question", {"id": ask_id, "kind": kind, "body": body})
            async with asyncio.timeout(within_s):
                while not is_enough(waiting.answers):
                    waiting.news.clear()
                    await waiting.news.wait()
            metrics.NODE_ASKS.labels(kind, "answered").inc()
        except TimeoutError:
            metrics.NODE_ASKS.labels(kind, "late").inc()
        finally:
            del self._open[ask_id]
        return waiting.answers

    async def have_done(self, to: str, kind: str, body: Body, within_s: float) -> Body:
        """Has the process `to` do something, at most once; gives its answer. Raises NotTaken, NoAnswer."""
        ask_id = str(uuid.uuid4())
        waiting = self._open[ask_id] = _Open()
        try:
            async with asyncio.timeout(within_s):
                return await self._have_done(ask_id, waiting, to, kind, body)
        except TimeoutError:
            raise NoAnswer from None
        except NotTaken:
            metrics.NODE_ASKS.labels(kind, "not_taken").inc()
            raise
        finally:
            del self._open[ask_id]

    async def _have_done(self, ask_id: str, waiting: _Open, to: str, kind: str, body: Body) -> Body:
        said = self._post.written("deed", {"id": ask_id, "kind": kind}, to)
        try:
            await self._db.fetch("select put_ask($1, $2, $3, $4, $5)", uuid.UUID(ask_id), dict(body), self._taken_within_s, CHANNEL, said)
        except _AWAY as error:
            log.warning("another daemon could not be asked", kind=kind, error=str(error)[:200])
            raise NoAnswer from None
        if not waiting.taken and not waiting.answers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._taken_within_s):
                    await waiting.news.wait()
        if not waiting.taken and not waiting.answers and await self._taken_back(ask_id):
            raise NotTaken
        while not waiting.answers:
            waiting.news.clear()
            await waiting.news.wait()
        metrics.NODE_ASKS.labels(kind, "answered").inc()
        return waiting.answers[0]

    async def _taken_back(self, ask_id: str) -> bool:
        try:
            return bool(await self._db.fetchval("select take_back_ask($1)", uuid.UUID(ask_id)))
        except _AWAY:
            return False

    # -- what the others say -------------------------------------------------------------------------------------------------

    def _was_taken(self, _: str, body: Body) -> None:
        if (waiting := self._open.get(str(body["id"]))) is not None:
            waiting.taken = True
            waiting.news.set()

    def _answered(self, _: str, body: Body) -> None:
        if (waiting := self._open.get(str(body["id"]))) is not None:
            waiting.answers.append(body["body"])
            waiting.news.set()

    def _asked(self, sender: str, body: Body) -> None:
        if (how := self._questions.get(str(body["kind"]))) is not None and self._at_work < MAX_AT_WORK:
            self._work(f"answer {body['kind']}", self._tell(sender, str(body["id"]), how, body["body"]))

    def _asked_to_do(self, sender: str, body: Body) -> None:
        if (how := self._deeds.get(str(body["kind"]))) is not None and self._at_work < MAX_AT_WORK:  # else it is not taken: nothing was done
            self._work(f"do {body['kind']}", self._do(sender, str(body["id"]), how))

    def _work(self, name: str, work: Any) -> None:
        self._at_work += 1

        def ended(_: object) -> None:
            self._at_work -= 1

        self._supervisor.job(name, work).add_done_callback(ended)

    async def _tell(self, sender: str, ask_id: str, how: Answerer, body: Body) -> None:
        if (answer := await how(body)) is not None:
            self._post.say("answer", {"id": ask_id, "body": answer}, to=sender)

    async def _do(self, sender: str, ask_id: str, how: Answerer) -> None:
        row = await self._db.fetchval("select take_ask($1)", uuid.UUID(ask_id))
        if row is None:
            return
        self._post.say("taken", {"id": ask_id}, to=sender)
        answer = await how(row)
        self._post.say("answer", {"id": ask_id, "body": answer or {}}, to=sender)
