"""A call in amoCRM: an entry of /api/v4/calls or a call note, found again by its `uniq`, and what becomes of a number that nobody knows.

`uniq` does not keep a call from standing there twice, so nothing is sent again before it was looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.amocrm.client import USERS, Accepted, AmoClient, Answer, Problem, as_outcome, embedded, field_errors, unseen
from adapters.amocrm.config import AmoCrmSettings
from adapters.amocrm.entities import Found, look_for, new_contact, plural
from adapters.amocrm.limits import MAX_NOTE_PAGES, NOTES_PER_PAGE
from adapters.amocrm.rules import call_status, call_words, extension_of, fitting, lead_name, responsible_user
from adapters.base import Tenant
from daemon.model.call import Call, Direction
from daemon.model.delivery import Ambiguous, Delivered, Delivery, Outcome, Rejected, Retry
from daemon.model.integration import Rule

NOT_FOUND = "entity not found"
NOTED = ("contacts", "leads", "companies", "customers")
EARLIER_S = 60  # the CRM's clock may go behind ours


class Journal:
    """Tells calls; one batch."""

    def __init__(self, client: AmoClient, settings: AmoCrmSettings, tenant: Tenant) -> None:
        self._client = client
        self._settings = settings
        self._tenant = tenant

    async def tell(self, batch: Sequence[Delivery]) -> list[Outcome]:
        """An outcome for each, in order."""
        if self._settings.journal_as == "notes":
            return [await self._as_note(delivery) for delivery in batch]
        entries = [{**call_entry(d.call, self._settings, self._tenant, d.recordings), "request_id": str(d.id)} for d in batch]
        answer = await (self._client.post_one("api/v4/calls", entries[0]) if len(batch) == 1 else self._client.post("api/v4/calls", entries))
        results = read_results(answer, [str(d.id) for d in batch])
        return [await self._unknown(d) if result is None else result for d, result in zip(batch, results, strict=True)]

    # -- a number that the CRM does not know -----------------------------------------------------------------------------------

    async def _unknown(self, delivery: Delivery) -> Outcome:
        """Makes what the rule says of the number, and stores the call with it.

        amoCRM compares ten digits: whose number stands there in a national form is looked for first, and gets a note.
        """
        call, rule = delivery.call, self._rule(delivery, False)
        if self._settings.journal_as == "calls":
            found = await look_for(self._client, call.customer_number or "", self._tenant.country)
            if isinstance(found, Found):
                return await self._note_for(delivery, found)
            if found is not None:
                return as_outcome(found)
        match rule.do:
            case "unsorted":
                return await self._unsorted(delivery, rule)
            case "nothing" | "ticket":
                return Delivered("the CRM knows nobody with this number, and the rule for it says to make nothing", {"known": False})
            case "lead":
                made = await self._make_lead(call, rule)
            case _:
                made = await self._make_contact(call, rule)
        if not isinstance(made, Mapping):
            return made
        return await self._again(delivery, made)

    async def _again(self, delivery: Delivery, made: Mapping[str, Any]) -> Outcome:
        """Stores the call now that there is somebody to store it with."""
        if self._settings.journal_as == "notes":
            return await self._write_note(delivery, str(made["entity_type"]), int(made["entity_id"]), made)
        entry = {**call_entry(delivery.call, self._settings, self._tenant, delivery.recordings), "request_id": str(delivery.id)}
        result = read_results(await self._client.post_one("api/v4/calls", entry), [str(delivery.id)])[0]
        if result is None:  # the contact is there, and the search does not show it yet
            return Retry("the CRM does not find the contact yet that was made for this call")
        return Delivered(result.detail, {**result.memory, **made}) if isinstance(result, Delivered) else result

    async def _unsorted(self, delivery: Delivery, rule: Rule) -> Outcome:
        item = unsorted_item(delivery.call, rule, self._settings, self._tenant, delivery.recordings)
        answer = await self._client.post_one("api/v4/leads/unsorted/sip", {**item, "request_id": str(delivery.id)})
        if not isinstance(answer, Accepted):
            return as_outcome(answer)
        made = answer.listed("unsorted")
        return Delivered("an incoming lead", {"known": False, "unsorted": str(made[0].get("uid", ""))} if made else {"known": False})

    async def _make_contact(self, call: Call, rule: Rule) -> Mapping[str, Any] | Outcome:
        contact = new_contact(_name(call), call.customer_number, responsible_user(call, rule, self._settings, self._tenant))
        answer = await self._client.post_one("api/v4/contacts", contact)
        made = answer.listed("contacts") if isinstance(answer, Accepted) else []
        if not made:
            return as_outcome(answer) if not isinstance(answer, Accepted) else Ambiguous("the CRM did not say which contact it made")
        return {"known": False, "entity_type": "contacts", "entity_id": made[0].get("id")}

    async def _make_lead(self, call: Call, rule: Rule) -> Mapping[str, Any] | Outcome:
        user = responsible_user(call, rule, self._settings, self._tenant)
        contact = new_contact(_name(call), call.customer_number, user)
        lead: dict[str, Any] = {"name": lead_name(call, self._settings, self._tenant), "_embedded": {"contacts": [contact]}}
        lead |= {"responsible_user_id": user} if user is not None else {}
        lead |= {"pipeline_id": self._settings.pipeline_id} if self._settings.pipeline_id is not None else {}
        answer = await self._client.post_one("api/v4/leads/complex", lead)
        if not isinstance(answer, Accepted):
            return as_outcome(answer)
        made = next(iter(_complex(answer)), None)
        if made is None:
            return Ambiguous("the CRM did not say which lead it made")
        return {"known": False, "entity_type": "leads", "entity_id": made.get("id"), "lead_id": made.get("id")}

    def _rule(self, delivery: Delivery, known: bool) -> Rule:
        return fitting(self._settings, delivery.call, known, late=bool(delivery.payload.get("late")))

    # -- as a note: where the adapter chooses the card ---------------------------------------------------------------------------

    async def _as_note(self, delivery: Delivery) -> Outcome:
        found = await look_for(self._client, delivery.call.customer_number or "", self._tenant.country)
        if found is None:
            return await self._unknown(delivery)
        return await self._note_for(delivery, found) if isinstance(found, Found) else as_outcome(found)

    async def _note_for(self, delivery: Delivery, found: Found) -> Outcome:
        entity_type, entity = ("leads", found.leads[0]) if len(found.leads) == 1 else ("contacts", found.contact)
        return await self._write_note(delivery, entity_type, int(entity["id"]), {"known": True})

    async def _write_note(self, delivery: Delivery, entity_type: str, entity_id: int, memory: Mapping[str, Any]) -> Outcome:
        note = call_note(delivery.call, self._settings, self._tenant, delivery.recordings)
        answer = await self._client.post_one(f"api/v4/{entity_type}/notes", {**note, "entity_id": entity_id, "request_id": str(delivery.id)})
        if not isinstance(answer, Accepted):
            return as_outcome(answer)
        made = answer.listed("notes")
        note_id = {"note_id": made[0].get("id")} if made else {}
        return Delivered("", {**memory, "entity_type": entity_type, "entity_id": entity_id, **note_id})

    # -- found again ---------------------------------------------------------------------------------------------------------------

    async def reconcile(self, delivery: Delivery) -> Outcome:
        """Whether a call is there: by the notes that carry its uniq, then among the incoming leads."""
        found = await self.find_note(delivery.call)
        if isinstance(found, Delivered):
            return Delivered("it had arrived", {"known": True, **found.memory})
        if found is not None:
            return found
        waiting = await self._find_unsorted(delivery.call)
        return waiting if waiting is not None else Retry("it had not arrived", after_s=0)

    async def find_note(self, call: Call) -> Outcome | None:
        """Delivered, with where the call's note stands, None when there surely is none, Ambiguous when there are too many to tell."""
        kind = "call_in" if call.direction is Direction.IN else "call_out"
        since = round(call.ended_at or call.started_at) - EARLIER_S
        for entity_type in NOTED:
            for page in range(1, MAX_NOTE_PAGES + 1):
                query = {"filter[note_type][0]": kind, "filter[updated_at][from]": str(since), "limit": str(NOTES_PER_PAGE), "page": str(page)}
                answer = await self._client.get(f"api/v4/{entity_type}/notes", query)
                if isinstance(answer, Problem) and entity_type == "customers":
                    break  # an account without customers
                if not isinstance(answer, Accepted):
                    return unseen(answer)
                notes = answer.listed("notes")
                for note in notes:
                    params = note.get("params")
                    if isinstance(params, Mapping) and params.get("uniq") == call.id:
                        return Delivered("", {"entity_type": entity_type, "entity_id": note.get("entity_id"), "note_id": note.get("id")})
                if len(notes) < NOTES_PER_PAGE:
                    break
            else:
                return Ambiguous(f"amoCRM has too many call notes to find this call among them ({entity_type})")
        return None

    async def _find_unsorted(self, call: Call) -> Outcome | None:
        for page in range(1, MAX_NOTE_PAGES + 1):
            query = {"filter[category][0]": "sip", "limit": str(NOTES_PER_PAGE), "page": str(page), "order[created_at]": "desc"}
            answer = await self._client.get("api/v4/leads/unsorted", query)
            if not isinstance(answer, Accepted):
                return unseen(answer)
            items = answer.listed("unsorted")
            for item in items:
                metadata = item.get("metadata")
                if isinstance(metadata, Mapping) and metadata.get("uniq") == call.id:
                    return Delivered("it had arrived, as an incoming lead", {"known": False, "unsorted": str(item.get("uid", ""))})
            if len(items) < NOTES_PER_PAGE:
                return None
        return Ambiguous("amoCRM has too many incoming leads to find this call among them")

    async def add_recording(self, delivery: Delivery) -> Outcome:
        """Gives the call's note the link of a recording that came late."""
        if not delivery.recordings:
            return Delivered("there is nothing to hand over: the recording is empty, or recordings are switched off")
        found = await self.find_note(delivery.call)
        if found is None and delivery.memory.get("unsorted"):
            return Delivered("the call is an incoming lead, which takes no link afterwards")
        if found is None:
            return Rejected("the call has no note that the link could be added to: it was deleted")
        if not isinstance(found, Delivered):
            return found
        params = call_note(delivery.call, self._settings, self._tenant, delivery.recordings)["params"]
        where = found.memory
        note = {"id": where["note_id"], "note_type": _note_type(delivery.call), "params": params}
        answer = await self._client.patch(f"api/v4/{where['entity_type']}/notes", [{**note, "entity_id": where["entity_id"]}])
        return Delivered() if isinstance(answer, Accepted) else as_outcome(answer)


# -- what is sent (pure) -----------------------------------------------------------------------------------------------------------


def call_entry(call: Call, settings: AmoCrmSettings, tenant: Tenant, recordings: Sequence[str] = ()) -> dict[str, Any]:
    """One item of /api/v4/calls. What is not known is left out: null is refused."""
    user = settings.user_of(extension := extension_of(call, Rule(do="nothing"), tenant))
    entry: dict[str, Any] = {
        "direction": "inbound" if call.direction is Direction.IN else "outbound",
        **_common(call, settings, recordings),
        "created_at": round(call.started_at),
    }
    if user is not None:
        entry |= {"responsible_user_id": user, "created_by": user}
    if (shown := user if user is not None else extension) is not None:
        entry["call_responsible"] = shown
    return entry


def call_note(call: Call, settings: AmoCrmSettings, tenant: Tenant, recordings: Sequence[str] = ()) -> dict[str, Any]:
    """The same as a note, without its entity."""
    user = settings.user_of(extension := extension_of(call, Rule(do="nothing"), tenant))
    shown = user if user is not None else extension
    params = _common(call, settings, recordings) | ({"call_responsible": shown} if shown is not None else {})
    note: dict[str, Any] = {"note_type": _note_type(call), "params": params, "created_at": round(call.started_at)}
    return note | ({"responsible_user_id": user, "created_by": user} if user is not None else {})


def unsorted_item(call: Call, rule: Rule, settings: AmoCrmSettings, tenant: Tenant, recordings: Sequence[str] = ()) -> dict[str, Any]:
    """An incoming lead of category sip. By the documentation `from` is who called and `phone` who was; in the lead's card some accounts
    show them the other way round: `client_in_phone` turns them."""
    client, line = call.customer_number or "", call.line or settings.source_name
    sides = {"phone": client, "from": line} if settings.client_in_phone else {"phone": line, "from": client}
    metadata: dict[str, Any] = {
        "uniq": call.id, **sides, "called_at": round(call.started_at), "duration": round(call.talk_seconds), "service_code": settings.source_name,
        "is_call_event_needed": True,
    }  # fmt: skip
    if recordings:
        metadata["link"] = recordings[0]
    extension = extension_of(call, rule, tenant)
    user = settings.user_of(extension)
    if (shown := user if user is not None else extension) is not None:
        metadata["call_responsible"] = shown
    item: dict[str, Any] = {
        "source_uid": settings.source_name, "source_name": settings.source_name, "created_at": round(call.started_at), "metadata": metadata,
        "_embedded": {"contacts": [new_contact(_name(call), client, user)], "leads": [{"name": lead_name(call, settings, tenant)}]},
    }  # fmt: skip
    return item | ({"pipeline_id": settings.pipeline_id} if settings.pipeline_id is not None else {})


def _common(call: Call, settings: AmoCrmSettings, recordings: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "uniq": call.id,
        "duration": round(call.talk_seconds),
        "source": settings.source_name,
        "phone": call.customer_number,
        "call_result": call_words(call, settings),
    }
    if (status := call_status(call)) is not None:
        found["call_status"] = status
    if recordings:
        found["link"] = recordings[0]
    return found


def _note_type(call: Call) -> str:
    return "call_in" if call.direction is Direction.IN else "call_out"


def _name(call: Call) -> str:
    return call.customer_name or call.customer_number or ""


# -- what came of it (pure) --------------------------------------------------------------------------------------------------------


def read_results(answer: Answer, ids: Sequence[str]) -> list[Outcome | None]:
    """What became of every item, by its request_id; None for a number that the CRM does not know.

    The answer of a batch names items, in `_embedded.calls` and in `errors`, under 200 or 400; one item alone may come back without its
    request_id. Of an item that is named nowhere nobody can tell.
    """
    if isinstance(answer, Problem) and "_total_items" not in answer.body and "_embedded" not in answer.body:
        return _refused(answer, ids)
    if not isinstance(answer, (Accepted, Problem)):
        return [answer] * len(ids)
    alone = ids[0] if len(ids) == 1 else ""
    stored = {_id(item, alone): item for item in embedded(answer.body, "calls")}
    listed = answer.body.get("errors")
    errors = {_id(item, alone): item for item in listed if isinstance(item, Mapping)} if isinstance(listed, list) else {}
    return [_result(stored.get(number), errors.get(number)) for number in ids]


def _result(stored: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> Outcome | None:
    if stored is not None:
        within = stored.get("_embedded")
        entity = within.get("entity") if isinstance(within, Mapping) else None
        entity_id = stored.get("entity_id") or (entity.get("id") if isinstance(entity, Mapping) else None)
        return Delivered("", {"known": True, "entity_type": plural(stored.get("entity_type")), "entity_id": entity_id})
    if error is None:
        return Ambiguous("amoCRM's answer does not name this call")
    words = f"{error.get('title') or ''}: {error.get('detail') or ''}".strip(": ")
    return None if NOT_FOUND in words.lower() else Rejected(words or "refused without a reason")


def _refused(answer: Problem, ids: Sequence[str]) -> list[Outcome | None]:
    """A batch that was refused as a whole: who is named is at fault, the others go again, alone."""
    if len(ids) == 1:
        return [answer.outcome]
    paths: dict[str, set[str]] = {}
    for number, path, _ in field_errors(answer.body):
        paths.setdefault(number, set()).add(path.rpartition(".")[2])
    if not paths.keys() & set(ids):
        return [Retry(f"refused together with others ({answer.words}), alone next time", after_s=0)] * len(ids)
    # Whose only fault is a user goes again too: alone it is sent in nobody's name.
    at_fault = {number for number, found in paths.items() if not found <= USERS}
    return [answer.outcome if number in at_fault else Retry("refused together with others, alone next time", after_s=0) for number in ids]


def _id(item: Mapping[str, Any], otherwise: str) -> str:
    return str(item["request_id"]) if item.get("request_id") is not None else otherwise


def _complex(answer: Accepted) -> list[Mapping[str, Any]]:
    """leads/complex answers a bare array, which the client has under `items`, or as every other list."""
    items = answer.body.get("items")
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else answer.listed("leads")
