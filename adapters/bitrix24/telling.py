"""What was planned, as the portal's commands; one request for as many deliveries as fit.

A delivery is a `Job`: commands, and what their answers mean: an outcome, or a further job (a user that the portal does not know is replaced by
the default one, a call whose responsible the portal has to name is looked up first). Jobs go round by round, those of one round together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.base import Connection
from adapters.bitrix24.client import Accepted, Answer, Command, Portal, Ref
from adapters.bitrix24.jobs import CALLBACK_CLICK, Answers, Job, Telling, is_denied, iso
from adapters.bitrix24.limits import FINISH, MAX_BATCH, POPUP, RECORD
from adapters.bitrix24.made import apply_rule, close_task
from adapters.bitrix24.rules import first_seen_by, person, refusal_code, status_code, users_of, whose
from daemon.model.call import Call, Direction, Result
from daemon.model.delivery import Ambiguous, AuthExpired, Delivered, Delivery, Kind, Outcome, Rejected, Retry
from daemon.model.phone import digits_of

OUTGOING, INCOMING, CALLBACK = 1, 2, 4
NOT_FINISHED_AGAIN_S = 5.0
MAX_ROUNDS = 4
_BUCKETS = {Kind.POPUP: POPUP, Kind.HANGUP: POPUP, Kind.JOURNAL: FINISH, Kind.RECORDING: RECORD}


async def tell(connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
    """Tells the portal of deliveries of one kind."""
    portal, settings = Portal(connection), connection.settings
    user = settings.default_user or await portal.own_user()
    at_work: dict[int, Job] = {}
    outcomes: dict[int, Outcome] = {}
    for index, delivery in enumerate(batch):
        _place(index, _begin(Telling(delivery, settings, connection.tenant, user, delivery.memory)), at_work, outcomes)
    for _ in range(MAX_ROUNDS):
        if not at_work:
            break
        now, at_work = at_work, {}
        for some in _groups(now):
            for index, result in (await _round(portal, some, _BUCKETS[batch[0].kind])).items():
                _place(index, result, at_work, outcomes)
    return [_one_right_less(delivery, outcomes.get(index, Retry("the portal was asked too often"))) for index, delivery in enumerate(batch)]


async def reconcile(connection: Connection, delivery: Delivery) -> Outcome:
    """A lost answer. A finish that has a CALL_ID is simply repeated: the second one is refused, which says that the first arrived. A call that was
    registered and finished in the same request is looked for in the portal's statistics."""
    step = delivery.payload.get("step")
    telling = Telling(delivery, connection.settings, connection.tenant, None, delivery.memory)
    if step == "rule" and not any(isinstance(rule, Mapping) and rule.get("do") == "task" for rule in delivery.payload.values()):
        return Retry("what is there already is not made again", after_s=0)
    if step == "rule":
        return Ambiguous("the task may have been made: look for it at the portal")
    if step == "close" or telling.call_id is not None:
        return Retry("repeating is safe", after_s=0)
    found = await _in_statistics(Portal(connection), {"EXTERNAL_CALL_ID": delivery.call.id})
    if isinstance(found, Mapping):
        return Delivered("it had arrived", {"call_id": found.get("CALL_ID"), "finished": True})
    return Retry("it had not arrived", after_s=0) if found is None else found


def _one_right_less(delivery: Delivery, outcome: Outcome) -> Outcome:
    """A right that only a rule needs (to make tasks, leads) stops that rule's item and not the telephony."""
    is_rules = delivery.payload.get("step") in ("rule", "close")
    return Rejected(outcome.reason) if is_rules and isinstance(outcome, AuthExpired) and is_denied(outcome) else outcome


# -- rounds ------------------------------------------------------------------------------------------------------------------------


def _place(index: int, result: Outcome | Job, at_work: dict[int, Job], outcomes: dict[int, Outcome]) -> None:
    if isinstance(result, Job):
        at_work[index] = result
    else:
        outcomes[index] = result


def _groups(jobs: Mapping[int, Job]) -> list[dict[int, Job]]:
    """As many jobs in one request as it takes commands."""
    groups: list[dict[int, Job]] = [{}]
    for index, job in jobs.items():
        if sum(len(each.commands) for each in groups[-1].values()) + len(job.commands) > MAX_BATCH:
            groups.append({})
        groups[-1][index] = job
    return groups


async def _round(portal: Portal, jobs: Mapping[int, Job], bucket: str) -> dict[int, Outcome | Job]:
    commands = [_named(command, index) for index, job in jobs.items() for command in job.commands]
    answers = await portal.run(commands, bucket)
    if not isinstance(answers, Mapping):
        if isinstance(answers, Rejected) and len(jobs) > 1:
            return dict.fromkeys(jobs, Retry(f"refused together with others ({answers.reason}), alone next time", after_s=0))
        return dict.fromkeys(jobs, answers)
    return {index: job.read({command.name: answers[f"d{index}{command.name}"] for command in job.commands}) for index, job in jobs.items()}


def _named(command: Command, index: int) -> Command:
    params = {key: Ref(f"d{index}{value.command}", value.path) if isinstance(value, Ref) else value for key, value in command.params.items()}
    return Command(f"d{index}{command.name}", command.method, params)


def _begin(telling: Telling) -> Outcome | Job:
    match telling.delivery.kind, telling.delivery.payload.get("step"):
        case Kind.POPUP, _:
            return _show(telling)
        case Kind.HANGUP, _:
            return _hide(telling)
        case Kind.RECORDING, _:
            return _attach(telling)
        case _, "rule":
            return apply_rule(telling)
        case _, "close":
            return close_task(telling)
        case _:
            return _finish(telling)


# -- cards ----------------------------------------------------------------------------------------------------------------------


def _show(telling: Telling) -> Outcome | Job:
    extensions = telling.delivery.payload["extensions"]
    if telling.own_click and telling.call.initiator in extensions:
        extensions = [extension for extension in extensions if extension != telling.call.initiator]
        if not extensions:
            return Delivered("the portal shows its own card to who clicked")
    users = users_of(telling.settings, extensions)
    if telling.call_id is not None:
        if not users:
            return Delivered("nobody of them is a user of the portal")
        return Job([Command("show", "telephony.externalCall.show", {"CALL_ID": telling.call_id, "USER_ID": users})], lambda answers: _is_there(answers["show"]))
    first = person(telling.settings, extensions, telling.user)
    if not users:
        return Job([_register(telling, first, show=True)], lambda answers: _registered(answers["register"]) or _without_card(telling, answers["register"]))
    commands = [_register(telling, {"USER_ID": users[0]}, show=True)]
    if len(users) > 1:
        commands.append(Command("show", "telephony.externalCall.show", {"CALL_ID": Ref("register", ("CALL_ID",)), "USER_ID": users[1:]}))
    return Job(commands, lambda answers: _registered(answers["register"]) or _without_card(telling, answers["register"]))


def _hide(telling: Telling) -> Outcome | Job:
    users = users_of(telling.settings, telling.delivery.payload["extensions"])
    if telling.call_id is None or not users or telling.memory.get("finished"):
        return Delivered("there is no card to close")
    return Job([Command("hide", "telephony.externalCall.hide", {"CALL_ID": telling.call_id, "USER_ID": users})], lambda answers: _is_there(answers["hide"]))


def _register(telling: Telling, user: Mapping[str, Any], *, show: bool) -> Command:
    call = telling.call
    is_callback = telling.click.startswith(CALLBACK_CLICK)
    kind = INCOMING if call.direction is Direction.IN else CALLBACK if is_callback else OUTGOING
    params = {
        **user, "PHONE_NUMBER": call.customer_number, "TYPE": kind, "CALL_START_DATE": iso(call.started_at, telling.tenant),
        "CRM_CREATE": bool(telling.delivery.payload.get("create")), "SHOW": show, "LINE_NUMBER": call.line, "EXTERNAL_CALL_ID": call.id,
    }  # fmt: skip
    return Command("register", "telephony.externalCall.register", params)


def _registered(answer: Answer) -> Delivered | None:
    """What is remembered of a registration."""
    if not isinstance(answer, Accepted) or not isinstance(answer.result, Mapping) or not answer.result.get("CALL_ID"):
        return None
    result = answer.result
    made = result.get("CRM_CREATED_ENTITIES") or result.get("CRM_CREATED_LEAD")
    memory: dict[str, Any] = {"call_id": str(result["CALL_ID"]), "known": bool(result.get("CRM_ENTITY_ID")) and not made}
    if result.get("CRM_ENTITY_ID"):
        memory["entity"] = [str(result.get("CRM_ENTITY_TYPE")), str(result["CRM_ENTITY_ID"])]
    error = result.get("LEAD_CREATION_ERROR")
    return Delivered(f"nothing was made of the number: {str(error)[:200]}" if error else "", memory)


def _without_card(telling: Telling, answer: Answer) -> Outcome | Job:
    """The portal knows nobody of those who ring: the call is registered for the default user, who is shown nothing."""
    if not _is_unknown_user(answer) or telling.user is None:
        return answer if not isinstance(answer, Accepted) else Ambiguous("the portal registered the call without a CALL_ID")
    again = _register(telling, {"USER_ID": int(telling.user)}, show=False)
    return Job([again], lambda answers: _registered(answers["register"]) or _final(answers["register"]))


def _is_there(answer: Answer) -> Outcome:
    if not isinstance(answer, Accepted):
        return answer
    return Delivered() if answer.result is not False else Delivered("the portal has no such call any more")


# -- the end ----------------------------------------------------------------------------------------------------------------------


def _finish(telling: Telling) -> Outcome | Job:
    """Once per call: only the first one counts. It carries who talked last."""
    if telling.memory.get("finished"):
        return Delivered("it was finished before")
    if telling.delivery.payload.get("user"):
        return _finish_by(telling, None, str(telling.delivery.payload["user"]))
    chosen = telling.delivery.payload.get("responsible") or {}
    responsible = chosen.get("known" if telling.memory.get("known") else "unknown")
    if responsible == "entity":
        search = Command("search", "telephony.externalCall.searchCrmEntities", {"PHONE_NUMBER": telling.call.customer_number})
        return Job([search], lambda answers: _finish_by(telling, None, _assigned(answers["search"])))
    if responsible == "last_talked" and telling.call.result is not Result.ANSWERED:
        return Job([_last_talk(telling.call)], lambda answers: _finish_by(telling, None, _talked(answers["talks"])))
    return _finish_by(telling, responsible, None)


def _last_talk(call: Call) -> Command:
    wanted = {"FILTER": {"PHONE_NUMBER": digits_of(call.customer_number or ""), ">CALL_DURATION": 0}, "SORT": "CALL_START_DATE", "ORDER": "DESC"}
    return Command("talks", "voximplant.statistic.get", wanted)


def _finish_by(telling: Telling, responsible: str | None, user: str | None) -> Job:
    who = {"USER_ID": int(user)} if user else person(telling.settings, whose(telling.call, telling.tenant, responsible), telling.user)
    return _finish_with(telling, who, may_replace=True)


def _finish_with(telling: Telling, who: Mapping[str, Any], *, may_replace: bool) -> Job:
    call, payload = telling.call, telling.delivery.payload
    commands: list[Command] = []
    if telling.call_id is None:
        first = person(telling.settings, first_seen_by(call), telling.user) if may_replace else who
        commands.append(_register(telling, first, show=False))
    is_answered = call.result is Result.ANSWERED
    params = {
        "CALL_ID": telling.call_id or Ref("register", ("CALL_ID",)), **who, "DURATION": max(1, round(call.talk_seconds)) if is_answered else 0,
        "STATUS_CODE": refusal_code(str(payload["code"])) if "code" in payload else status_code(call), "FAILED_REASON": payload.get("reason"),
    }  # fmt: skip
    commands.append(Command("finish", "telephony.externalCall.finish", params))

    def read(answers: Answers) -> Outcome | Job:
        registered = _registered(answers["register"]) if "register" in answers else None
        if any(_is_unknown_user(answer) for answer in answers.values()) and may_replace and telling.user is not None:
            with_id = _remembering(telling, registered)
            return _finish_with(with_id, {"USER_ID": int(telling.user)}, may_replace=False)
        if registered is None and "register" in answers:
            return _final(answers["register"])
        return _finished(telling, registered, answers["finish"])

    return Job(commands, read)


def _remembering(telling: Telling, registered: Delivered | None) -> Telling:
    memory = {**telling.memory, **(registered.memory if registered else {})}
    return Telling(telling.delivery, telling.settings, telling.tenant, telling.user, memory)


def _finished(telling: Telling, registered: Delivered | None, answer: Answer) -> Outcome | Job:
    known = registered.memory if registered else {}
    if isinstance(answer, Accepted):
        result = answer.result if isinstance(answer.result, Mapping) else {}
        memory: dict[str, Any] = {**known, "call_id": telling.call_id or known.get("call_id"), "finished": True, "user": _id(result.get("PORTAL_USER_ID"))}
        if result.get("CRM_ENTITY_ID"):
            memory["entity"] = [str(result.get("CRM_ENTITY_TYPE")), str(result["CRM_ENTITY_ID"])]
            memory.setdefault("known", telling.memory.get("known", True))
        return Delivered("", memory)
    if isinstance(answer, Rejected) and "call is not found" in answer.reason.lower() and telling.call_id is not None and telling.delivery.attempt > 1:
        looked = Command("talks", "voximplant.statistic.get", {"FILTER": {"CALL_ID": telling.call_id}})
        return Job([looked], lambda answers: _was_finished(telling, answer, answers["talks"]))
    return answer


def _was_finished(telling: Telling, refused: Rejected, looked: Answer) -> Outcome:
    if isinstance(looked, Accepted) and not _rows(looked):
        return refused
    if not isinstance(looked, (Accepted, Rejected)) and not is_denied(looked):
        return looked
    return Delivered("a former attempt had arrived", {"call_id": telling.call_id, "finished": True})


def _attach(telling: Telling) -> Outcome | Job:
    links = telling.delivery.recordings
    if not links:
        return Delivered("there is nothing to hand over: the recording is empty, or recordings are switched off")
    if telling.call_id is None:
        return Rejected("the portal was never told of the call")
    command = Command("attach", "telephony.externalCall.attachRecord", {"CALL_ID": telling.call_id, "RECORD_URL": links[0]})
    return Job([command], lambda answers: _attached(answers["attach"]))


def _attached(answer: Answer) -> Outcome:
    if isinstance(answer, Accepted):
        return Delivered()
    words = getattr(answer, "reason", "").lower()
    if isinstance(answer, Rejected) and ("not finished yet" in words or "http error code" in words):
        return Retry(answer.reason, NOT_FINISHED_AGAIN_S)
    return answer


# -- answers -------------------------------------------------------------------------------------------------------------------------


async def _in_statistics(portal: Portal, wanted: Mapping[str, str]) -> Mapping[str, Any] | Outcome | None:
    """The call's line in the portal's statistics, None when it surely is not there, or why that cannot be said."""
    answer = await portal.call("voximplant.statistic.get", {"FILTER": wanted}, FINISH)
    if isinstance(answer, Accepted):
        return next(iter(_rows(answer)), None)
    if isinstance(answer, Rejected) or is_denied(answer):
        return Ambiguous(f"it may have arrived, and the statistics cannot be asked: {getattr(answer, 'reason', '')}")
    return answer


def _rows(answer: Accepted) -> list[Mapping[str, Any]]:
    return [row for row in answer.result if isinstance(row, Mapping)] if isinstance(answer.result, list) else []


def _talked(answer: Answer) -> str | None:
    """Who talked with the customer last; nobody when the statistics cannot be asked."""
    return next((user for row in _rows(answer) if (user := _id(row.get("PORTAL_USER_ID")))), None) if isinstance(answer, Accepted) else None


def _assigned(answer: Answer) -> str | None:
    return next((user for row in _rows(answer) if (user := _id(row.get("ASSIGNED_BY_ID")))), None) if isinstance(answer, Accepted) else None


def _id(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, int)) and str(value).isdecimal() and str(value) != "0" else None


def _is_unknown_user(answer: Answer) -> bool:
    return isinstance(answer, Rejected) and "user is not found" in answer.reason.lower()


def _final(answer: Answer) -> Outcome:
    return answer if not isinstance(answer, Accepted) else Ambiguous("the portal registered the call without a CALL_ID")
