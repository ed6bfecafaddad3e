"""The account that chaos gives: it finds what is lost, doubled and out of order, and knows what could not be seen."""

from __future__ import annotations

from typing import Any

from lab.chaos.account import Told, settle
from lab.chaos.report import BEGIN, END, table, written_into
from lab.chaos.rows import Row
from lab.chaos.traffic import MadeCall

ONE, TWO = "+375291000001", "+375291000002"


def made(phone: str = ONE, began: float = 100.0, ended: float | None = 110.0) -> dict[str, MadeCall]:
    return {phone: MadeCall(phone, "p", "inbound-answered", "100.1", began, ended)}


def kept(*phones: str) -> list[dict[str, Any]]:
    return [{"customer_number": phone} for phone in phones]


def test_a_call_that_is_kept_and_told_once_is_all_right() -> None:
    account = settle(made(), kept(ONE), {"crm": Told([ONE], {ONE: ["popup", "hangup", "journal"]})}, [])
    assert (account.made, account.kept, account.is_clean, account.wrong) == (1, 1, True, [])


def test_what_is_kept_and_not_told_is_lost() -> None:
    assert settle(made(), kept(ONE), {"crm": Told([])}, []).lost == 1


def test_what_nobody_kept_is_lost_unless_the_line_was_away_and_no_cdr_tells_of_it() -> None:
    assert settle(made(), [], {}, []).lost == 1
    assert settle(made(), [], {}, [(500.0, 600.0)]).lost == 1
    blind = [(105.0, 108.0)]
    assert (settle(made(), [], {}, blind).lost, settle(made(), [], {}, blind).unseen) == (0, 1)
    assert settle(made(), [], {}, blind, has_cdr=True).lost == 1
    assert settle(made(ended=None), [], {}, [(100.0, 200.0)], has_cdr=True).unseen == 1  # the PBX was switched off: it wrote none


def test_two_records_two_entries_and_an_entry_of_nothing_are_doubles() -> None:
    assert settle(made(), kept(ONE, ONE), {"crm": Told([ONE])}, []).doubled == 1
    assert settle(made(), kept(ONE), {"crm": Told([ONE, ONE])}, []).doubled == 1
    assert settle(made(), kept(ONE), {"crm": Told([ONE, TWO])}, []).doubled == 1


def test_a_popup_after_the_journal_is_out_of_order() -> None:
    assert settle(made(), kept(ONE), {"crm": Told([ONE], {ONE: ["popup", "journal", "popup"]})}, []).disordered == 1
    assert settle(made(), kept(ONE), {"crm": Told([ONE], {ONE: ["popup", "popup", "hangup", "journal", "journal"]})}, []).disordered == 0


def test_a_row_is_good_only_when_all_was_survived_and_nothing_is_wrong() -> None:
    row = Row("F0", "nothing", tried=1, survived=1)
    assert row.is_good
    row.account.lost = 1
    assert not row.is_good
    assert not Row("F0", "nothing").is_good
    assert table([row]).splitlines()[-1].startswith("| F0 | nothing | 1 | 1 | 0 | 0 | 1 |")


def test_rows_are_written_into_a_documents_table_and_the_others_stay() -> None:
    document = f"before\n{BEGIN}\n{END}\nafter\n"
    one, two = Row("F1", "one", 1, 1), Row("F2", "two", 2, 2)
    both = written_into(written_into(document, [two], ["F1", "F2"]), [one], ["F1", "F2"])
    assert both == f"before\n{BEGIN}\n{table([one, two])}\n{END}\nafter\n"
    again = written_into(both, [Row("F1", "one", 9, 9)], ["F1", "F2"])
    assert "| F1 | one | 9 | 9 |" in again
    assert "| F2 | two | 2 | 2 |" in again
    assert "| F1 | one | 1 |" not in again
