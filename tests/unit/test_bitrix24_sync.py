"""The pure half of Bitrix24's sync: what a record is at the portal and back, whose value stands, and that an echo changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.bitrix24.client import Accepted, Command
from adapters.bitrix24.inbound import BadInbound, read_event
from adapters.bitrix24.sync_comments import Wording, read_block, with_block
from adapters.bitrix24.sync_fields import (
    ENTITY,
    ORIGINATOR,
    OUT_ONLY,
    VIEW,
    Surroundings,
    from_portal,
    kind_of,
    modified_at,
    origin,
    read_origin,
    to_portal,
)  # fmt: skip
from adapters.bitrix24.sync_look import Listing, deals_of, listings
from adapters.bitrix24.sync_pairing import Signs, pair_up, signs_of_entity, signs_of_record, title_sign, written_forms
from adapters.bitrix24.sync_rules import Known, Merged, digest, error_type, is_stale, merge, remembered
from daemon.model.crm_record import RecordType
from daemon.model.delivery import Ambiguous, AuthExpired, Delivered, Rejected, Retry, Throttled

AROUND = Surroundings(1_763_701_800.0, 1_763_701_900.0, "Europe/Minsk", "BY")
# What people write; control characters other than a line break are no text of a record.
text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=60)
line = text.map(lambda value: " ".join(value.split())).filter(bool)
several_lines = st.lists(line, min_size=1, max_size=4).map("\n".join)
maybe = lambda values: st.none() | values  # noqa: E731
days = st.dates().map(lambda day: day.isoformat())
phones = st.integers(1_000_000, 9_999_999).map(lambda number: f"+37529{number}")
ids = st.integers(1, 10**9).map(str)
VIEWS = {
    RecordType.USER: st.fixed_dictionaries({"name": line, "email": maybe(st.emails()), "phone": maybe(phones), "role": maybe(several_lines)}),
    RecordType.COMPANY: st.fixed_dictionaries({"name": line, "phone": maybe(phones)}),
    RecordType.CONTRACT: st.fixed_dictionaries({"number": line, "starts_on": maybe(days), "ends_on": maybe(days), "company": maybe(ids)}),
    RecordType.OBJECT: st.fixed_dictionaries(
        {"name": line, "description": maybe(several_lines), "imei": maybe(line), "type": maybe(line), "contract": maybe(line), "company": maybe(ids)}
    ),
}
views = st.sampled_from(list(VIEWS)).flatmap(lambda kind: st.tuples(st.just(kind), VIEWS[kind]))


def stored(entity: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """What a portal keeps of a write."""
    new = {**entity, **{name: value for name, value in fields.items() if name not in ("PHONE", "EMAIL")}}
    for name in ("PHONE", "EMAIL"):
        rows = [dict(row) for row in new.get(name, [])]
        for row in fields.get(name, []):
            there = next((one for one in rows if row.get("ID") and one["ID"] == row["ID"]), None)
            if there is not None and not row["VALUE"]:
                rows.remove(there)
            elif there is not None:
                there |= row
            elif row["VALUE"]:
                rows.append({"ID": str(len(rows) + 31), **row})
        new[name] = rows
    return new


def as_seen(kind: RecordType, view: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in view.items() if name not in OUT_ONLY.get(kind, ())}


@given(views, st.sampled_from(Wording))
def test_what_is_written_reads_back(made: tuple[RecordType, dict[str, Any]], wording: Wording) -> None:
    kind, view = made
    around = Surroundings(AROUND.created_at, AROUND.updated_at, AROUND.timezone, AROUND.country, wording)
    entity = stored({}, to_portal(kind, view, VIEW[kind], {}, around))
    seen = from_portal(kind, entity, view, "BY")
    seen.pop("maybe", None)
    assert seen == as_seen(kind, view)


@given(views, st.data(), several_lines)
def test_a_change_of_some_fields_reads_back_and_leaves_what_people_wrote(made: tuple[RecordType, dict[str, Any]], data: st.DataObject, said: str) -> None:
    kind, view = made
    new = data.draw(VIEWS[kind])
    said = said.replace("—", "-")
    theirs = {"ID": "99", "VALUE": "+375170000001", "VALUE_TYPE": "HOME"}
    there = stored({"COMMENTS": said}, to_portal(kind, view, VIEW[kind], {"COMMENTS": said}, AROUND))
    if view.get("phone") and new.get("phone"):
        there["PHONE"] = [*there["PHONE"], theirs]
    changed = [name for name in VIEW[kind] if new[name] != view[name]]
    after = stored(there, to_portal(kind, new, changed, there, AROUND, view))
    seen = from_portal(kind, after, new, "BY")
    seen.pop("maybe", None)
    assert seen == as_seen(kind, new)
    assert theirs not in there["PHONE"] or theirs in after["PHONE"]
    assert kind is RecordType.COMPANY or after["COMMENTS"].startswith(said)


@pytest.mark.parametrize("mangle", [lambda text: text, lambda text: text.replace("\n", "<br>\n"), lambda text: text.replace("\n", "<br />"),
                                    lambda text: text.replace("\n", "\r\n"), lambda text: "<p>" + text.replace("\n", "</p><p>") + "</p>"])  # fmt: skip
def test_the_block_is_read_however_the_portal_breaks_lines(mangle: Any) -> None:
    values = {"imei": "350000000000017", "description": "первая\nвторая \\n третья — vochid —", "type": "трактор"}
    written = with_block("Звонить после обеда", values, Wording.RU)
    assert read_block(mangle(written)) == values
    again = with_block(mangle(written), {**values, "type": "прицеп"}, Wording.EN)
    assert read_block(again) == {**values, "type": "прицеп"}
    assert "Звонить после обеда" in again
    assert again.count("— vochid —\n") == 1


def test_without_our_block_nothing_is_known_of_what_it_would_say() -> None:
    view = from_portal(RecordType.USER, {"NAME": "Ирина", "LAST_NAME": "Лис", "COMMENTS": "стёрто", "HAS_PHONE": "N", "HAS_EMAIL": "N"}, {}, "BY")
    assert view == {"name": "Ирина Лис", "phone": None, "email": None}
    assert "name" not in from_portal(RecordType.USER, {"NAME": "", "LAST_NAME": None}, {}, "BY")
    assert "phone" not in from_portal(RecordType.USER, {"NAME": "А", "PHONE": [{"ID": "1", "VALUE": "доб. 12"}]}, {}, "BY")


def test_a_deals_title_is_taken_apart_by_what_the_block_says() -> None:
    def seen(title: str, **block: str) -> dict[str, Any]:
        entity = {"TITLE": title, "COMMENTS": with_block("", block, Wording.RU) if block else ""}
        return {name: value for name, value in from_portal(RecordType.OBJECT, entity, {}, "BY").items() if name in ("name", "contract", "maybe")}

    assert seen("Трактор (7/26)", contract="7/26") == {"name": "Трактор", "contract": "7/26"}
    assert seen("Трактор (8/26)", contract="7/26") == {"name": "Трактор (8/26)", "maybe": ("Трактор", "8/26")}
    assert seen("Трактор (синий)", imei="1") == {"name": "Трактор (синий)", "contract": None, "maybe": ("Трактор", "синий")}
    assert seen("Трактор", contract="7/26") == {"name": "Трактор"}
    assert seen("(7/26)") == {"name": "(7/26)", "contract": None}


def test_whose_an_entity_is_stands_in_its_origin() -> None:
    mine = {"ORIGINATOR_ID": ORIGINATOR, "ORIGIN_ID": origin("0367", RecordType.USER, 12)}
    assert read_origin(mine, "0367") == (RecordType.USER, 12)
    assert read_origin(mine, "0368") is None
    for wrong in ("", "0367:user", "0367:thing:1", "0367:user:x", "0367:user:1:2", "0367:user:" + "9" * 30):
        assert read_origin({**mine, "ORIGIN_ID": wrong}, "0367") is None
    assert read_origin({**mine, "ORIGINATOR_ID": "1C"}, "0367") is None
    assert [kind_of(name, {}) for name in ("contact", "company", "deal")] == [RecordType.USER, RecordType.COMPANY, RecordType.OBJECT]
    assert kind_of("deal", {"COMMENTS": with_block("", {"number": "7"}, Wording.EN)}) is RecordType.CONTRACT
    assert set(ENTITY) == set(RecordType)


@given(st.dictionaries(st.sampled_from(["ID", "NAME", "TITLE", "PHONE", "EMAIL", "COMMENTS", "BEGINDATE", "DATE_MODIFY", "COMPANY_ID", "ORIGIN_ID"]),
                       st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3)
                                    | st.dictionaries(st.sampled_from(["ID", "VALUE"]), inner, max_size=2), max_leaves=6)))  # fmt: skip
def test_whatever_a_portal_answers_is_read(entity: dict[str, Any]) -> None:
    for kind in RecordType:
        assert set(from_portal(kind, entity, {"phone": "+375291112233"}, "BY")) <= {*VIEW[kind], "maybe"}
    read_origin(entity, "0367")
    modified_at(entity)


def test_an_event_names_its_entity_and_nothing_else_is_believed() -> None:
    def read(name: str, number: str) -> Any:
        return read_event([("event", name), ("data[FIELDS][ID]", number), ("ts", "1")]).entity

    assert read("ONCRMCONTACTUPDATE", "797") == ("contact", 797)
    assert read("OnCrmDealAdd", "5") == ("deal", 5)
    assert read("ONCRMCOMPANYDELETE", "8") == ("company", 8)
    assert read("ONCRMLEADADD", "8") is None
    for name, before, after in (("ONTASKADD", "undefined", "5"), ("ONTASKUPDATE", "5", "5"), ("OnTaskDelete", "5", "undefined")):
        data = [(f"data[FIELDS_{when}]" + ("" if value == "undefined" else "[ID]"), value) for when, value in (("BEFORE", before), ("AFTER", after))]
        assert read_event([("event", name), *data, ("data[IS_ACCESSIBLE_AFTER]", "N")]).entity == ("task", 5)
    with pytest.raises(BadInbound):
        read("ONTASKADD", "5")  # as entities have it, not tasks
    for wrong in ("", "x", "0", "-1", "9" * 13):
        with pytest.raises(BadInbound):
            read("ONCRMDEALADD", wrong)


# -- whose value stands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed", "ours_at", "theirs_at", "applied", "written", "conflict"),
    [
        ("a", "a", {"f": "a"}, 0, 0, None, False, False),
        ("b", "a", {"f": "a"}, 1, 9, None, True, False),  # only we changed it, however new theirs is
        ("a", "b", {"f": "a"}, 9, 1, "b", False, False),
        ("b", "c", {"f": "a"}, 5, 6, "c", False, True),
        ("b", "c", {"f": "a"}, 6, 6, None, True, True),  # the portal tells whole seconds: a tie is ours
        ("b", "c", {"f": "a"}, 6, None, None, True, True),
        ("b", "b", {"f": "a"}, 6, 7, None, False, False),
        ("b", None, {"f": "a"}, 5, 6, None, False, True),
        (None, "b", {}, 9, 1, "b", False, False),  # never agreed on: what is empty is filled
        ("b", None, {}, 1, 9, None, True, False),
        ("b", "c", {}, 1, 9, "c", False, True),
        ("b", "c", {}, 9, 1, None, True, True),
    ],
)  # fmt: skip
def test_the_later_change_of_a_field_stands(
    ours: Any, theirs: Any, agreed: dict[str, Any], ours_at: float, theirs_at: float | None, applied: Any, written: bool, conflict: bool
) -> None:
    done = merge({"f": ours}, {"f": theirs}, agreed, {"f": ours_at}, theirs_at)
    assert (done.apply.get("f"), done.write, len(done.conflicts)) == (applied, ("f",) if written else (), conflict)
    assert done.agreed["f"] == done.apply.get("f", ours)


def test_what_the_portal_never_had_is_written_and_what_it_does_not_show_is_left() -> None:
    assert merge({"f": "a"}, {}, {}, {}, 1.0) == Merged({}, ("f",), {"f": "a"})
    assert merge({"f": "b"}, {}, {"f": "a"}, {}, 1.0) == Merged({}, ("f",), {"f": "b"})
    assert merge({"f": None}, {}, {}, {}, 1.0).write == ()
    assert merge({"f": "a"}, {}, {"f": "a"}, {}, 1.0).write == ()
    assert merge({"f": "b"}, {}, {"f": "a"}, {}, 1.0).write == ("f",)
    assert merge({}, {"f": "b"}, {"f": "a"}, {}, 1.0).apply == {}
    assert merge({"company": "7"}, {"company": "8"}, {"company": "7"}, {}, 9.0, frozenset({"company"})).apply == {}
    assert merge({"company": "7"}, {}, {}, {}, 9.0, frozenset({"company"})).write == ("company",)


moves = st.lists(st.tuples(st.sampled_from(["ours", "theirs", "look", "late look"]), st.integers(0, 3)), max_size=30)


@settings(max_examples=300)
@given(moves)
def test_no_echo_comes_back_and_both_sides_end_equal(steps: list[tuple[str, int]]) -> None:
    """A portal whose reads may lag, in any order with changes on both sides: what is read late is never applied, and a last look makes both equal."""
    clock, local, changed = 0.0, {"f": "start"}, {"f": 0.0}
    remote, at, known = dict(local), 0.0, Known(dict(local), {}, (), 0.0)
    history = [(dict(remote), at)]
    seen_of_theirs = {"start"}

    def look(view: dict[str, Any], view_at: float) -> None:
        nonlocal local, remote, at, known
        stale = is_stale(view, view_at, known)
        done = merge(local, dict(known.agreed) if stale else view, known.agreed, changed, view_at)
        local = {**local, **done.apply}
        before, written = view, known.written
        if done.write:
            remote, at = {**remote, **{name: local[name] for name in done.write}}, float(int(clock))
            history.append((dict(remote), at))
            written = remembered(remembered(written, before), remote)
        known = Known(done.agreed, {}, written, max(at if done.write else view_at, known.changed_at or 0.0))

    for step, (what, which) in enumerate(steps):
        clock += 1.0
        match what:
            case "ours":
                local, changed = {"f": f"ours {step}"}, {"f": clock}
            case "theirs":
                remote, at = {"f": f"theirs {step}"}, float(int(clock))
                history.append((dict(remote), at))
                seen_of_theirs.add(remote["f"])
            case "look":
                look(dict(remote), at)
            case _:
                before = dict(local)
                old, old_at = history[-1 - which % len(history)]
                was_known = known
                look(dict(old), old_at)
                if is_stale(old, old_at, was_known):
                    assert local == before
    clock += 1.0
    look(dict(remote), at)
    assert local == remote == dict(known.agreed)
    writes = len(history)
    look(dict(remote), at)
    assert (len(history), local) == (writes, remote)


def test_within_one_second_only_what_we_saw_at_our_writes_counts_as_late() -> None:
    known = Known({"f": "b"}, {}, remembered(remembered((), {"f": "a"}), {"f": "b"}), 10.0)
    assert is_stale({"f": "a"}, 10.0, known)
    assert not is_stale({"f": "c"}, 10.0, known)
    assert not is_stale({"f": "a"}, 11.0, known)
    assert is_stale({"f": "c"}, 9.0, known)
    assert not is_stale({"f": "a"}, None, known)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len(remembered([str(n) for n in range(20)], {"f": "a"})) == 10


def test_a_failure_is_of_one_of_four_types() -> None:
    said = (
        (AuthExpired("NO_AUTH_FOUND"), "auth"), (Rejected("Access denied."), "auth"), (Rejected("insufficient_scope: more"), "auth"),
        (Rejected("Not found"), "validation"), (Retry("502"), "network"), (Ambiguous("no answer"), "network"), (Throttled("limit", 2.0), "limit"),
        (Delivered(), None),
    )  # fmt: skip
    assert [error_type(outcome) for outcome, _ in said] == [expected for _, expected in said]


def test_of_several_phones_the_one_that_is_here_too_is_ours_and_what_nobody_understands_stays() -> None:
    rows = [{"ID": "1", "VALUE": "доб. 12", "VALUE_TYPE": "WORK"}, {"ID": "2", "VALUE": "8 029 111-22-33", "VALUE_TYPE": "HOME"}]
    assert from_portal(RecordType.USER, {"NAME": "А", "PHONE": rows}, {"phone": "+375291112233"}, "BY")["phone"] == "+375291112233"
    view = {"name": "А", "phone": "+375291112244"}
    sent = to_portal(RecordType.USER, view, ["phone"], {"PHONE": rows[:1]}, AROUND)
    assert sent["PHONE"] == [{"VALUE": "+375291112244", "VALUE_TYPE": "WORK"}]
    sent = to_portal(RecordType.USER, view, ["phone"], {"PHONE": rows}, AROUND, {"phone": "+375291112233"})
    assert sent["PHONE"] == [{"ID": "2", "VALUE": "+375291112244", "VALUE_TYPE": "HOME"}]


# -- who is who at the first meeting -----------------------------------------------------------------------------------------------

few_phones = st.frozensets(st.sampled_from(["+375291112233", "+375291112234", "+375291112235", "+375291112236"]), max_size=2)
several = st.dictionaries(st.integers(1, 30), st.builds(Signs, few_phones, st.none() | st.sampled_from(["восток", "север"])), max_size=6)


@given(several, several)
def test_only_what_can_be_nothing_else_is_joined(here: dict[int, Signs], there: dict[int, Signs]) -> None:
    joined, doubts = pair_up(here, there)
    for record, signs in here.items():
        could_be = [one for one, theirs in there.items() if signs.share(theirs)]
        alone = [one for one in could_be if sum(mine.share(there[one]) for mine in here.values()) == 1]
        assert (record in joined) == (len(could_be) == 1 and alone == could_be)
        assert (record in doubts) == (bool(could_be) and record not in joined)
        if record in doubts:
            assert set(doubts[record].entities) == set(could_be)
            assert all(str(one) in doubts[record].reason for one in (*could_be, *doubts[record].records))
            assert error_type(Rejected(doubts[record].reason)) == "validation"
    assert len(set(joined.values())) == len(joined)
    backwards, _ = pair_up(there, here)
    assert joined == {record: entity for entity, record in backwards.items()}


@given(st.integers(1_000_000, 9_999_999), st.sampled_from(["{}", "8 029 {}", "+375 (29) {}", "80 29-{}", "00375 29 {}"]), st.data())
def test_a_number_is_the_same_however_it_is_written(number: int, written: str, data: st.DataObject) -> None:
    phone = f"+37529{number}"
    if written == "{}":
        written = phone.replace("{", "")
    rows = [{"ID": "7", "VALUE": written.format(number)}, {"ID": "8", "VALUE": "доб. 12"}]
    theirs = signs_of_entity(RecordType.USER, {"PHONE": data.draw(st.permutations(rows))}, "BY")
    ours = signs_of_record(RecordType.USER, {"name": "Ирина", "phone": phone})
    assert ours.share(theirs) == (len(theirs.phones) == 1 and phone in theirs.phones)
    assert phone in theirs.phones or not theirs.phones  # a number that no network has is nobody's sign
    assert written_forms(phone, "BY")[0] == phone
    assert all("+" not in form and len(form) < len(phone) for form in written_forms(phone, "BY")[1:])


def test_titles_tell_companies_and_nothing_else() -> None:
    ours = signs_of_record(RecordType.COMPANY, {"name": "ООО «Берёзка»  Плюс", "phone": None})
    assert ours.share(signs_of_entity(RecordType.COMPANY, {"TITLE": "ооо «березка» плюс"}, "BY"))
    assert not ours.share(signs_of_entity(RecordType.COMPANY, {"TITLE": "ооо «березка»"}, "BY"))
    assert not signs_of_record(RecordType.USER, {"name": "Ирина", "phone": None})
    assert not signs_of_record(RecordType.OBJECT, {"name": "Трактор"})
    assert not signs_of_entity(RecordType.OBJECT, {"TITLE": "Трактор", "PHONE": [{"VALUE": "+375291112233"}]}, "BY")
    assert [title_sign(one) for one in (None, "  ", 7)] == [None, None, None]
    assert not Signs().share(Signs())


# -- lists -------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["contact", "deal"]), st.sampled_from(["ID", "ORIGIN_ID"]), st.integers(1, 200).map(str)), max_size=160))
def test_lists_hold_every_place_once_and_fifty_at_most(places: list[tuple[str, str, str]]) -> None:
    made = listings(places)
    held = [place for one in made for place in one.places.values()]
    assert sorted(held) == sorted(set(places))
    assert all(0 < len(one.places) <= 50 and len({place[:2] for place in one.places.values()}) == 1 for one in made)
    assert len({one.command.name for one in made}) == len(made)
    for one in made:
        rows = [{"ID": str(number), one.key: key} for number, key in enumerate(one.places, 1)]
        found, is_whole = one.read(Accepted(rows))
        assert (set(found), is_whole) == (set(one.places.values()), True)


def test_of_a_list_that_may_leave_something_out_nothing_is_concluded() -> None:
    places = {str(number): ("contact", "ORIGIN_ID", str(number)) for number in range(3)}
    one = Listing(Command("l0", "crm.contact.list", {}), places, "ORIGIN_ID")
    mine, strange = {"ID": "7", "ORIGIN_ID": "1"}, {"ID": "8", "ORIGIN_ID": "99"}
    assert one.read(Accepted([mine])) == ({places["1"]: mine}, True)
    assert one.read(Accepted([mine, {"ID": "9", "ORIGIN_ID": "1"}])) == ({places["1"]: mine}, True)  # of doubles the first
    assert one.read(Accepted([mine, strange])) == ({}, False)  # the filter was not understood
    assert one.read(Accepted([mine] * 50)) == ({places["1"]: mine}, False)  # there may be more on the next page
    for wrong in (Accepted({}), Accepted([3]), Rejected("no"), Accepted(None)):
        assert one.read(wrong) == ({}, False)


@pytest.mark.parametrize(("links", "deals"), [(["D_12", "C_5", "D_3", "D_x", "CO_1"], (3, 12)), (False, ()), ([], ()), ("D_1", ()), (None, ())])
def test_a_task_names_its_deals(links: Any, deals: tuple[int, ...]) -> None:
    assert deals_of({"task": {"id": "5", "ufCrmTask": links}}) == deals
    assert deals_of([]) == deals_of({"task": []}) == ()
