"""Parts of pages by themselves: what stands in them, escaped and in the person's language."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from admin_http.pages.wording import typed_day
from admin_http.views import Views, browser, duration, phone

HOSTILE = "<script>alert(1)</script>"


def manager(user: str, name: str, extension: str | None, remote: str | None = None, active: bool = True) -> SimpleNamespace:
    return SimpleNamespace(id=user, name=name, active=active, extension=extension, remote_extension=remote)


def managers(**more: Any) -> str:
    found = SimpleNamespace(
        items=[manager("19", "Анна", "150", "150"), manager("22", HOSTILE, None, "177")],
        alarms=[{"kind": "other", "detail": HOSTILE}, {"kind": "no_extension", "name": HOSTILE, "extension": None}],
        mend_error=None,
    )
    context = {
        "base": "/cabinet", "problem": "", "found": found, "phones": {"150": "Приёмная", "151": "", "152": HOSTILE}, "held": {"150": "Анна"}, "done": "",
        "warning": "", "csrf": "t", "session": SimpleNamespace(role="cabinet"), "visit": SimpleNamespace(may=lambda _: False), **more,
    }  # fmt: skip
    return Views().render("integrations/managers.html", "ru", context)


def test_managers_choose_among_phones_with_their_owners() -> None:
    page = managers()
    assert '<option value="150" selected>150 (Приёмная)</option>' in page
    assert page.count('<option value="151">151 (свободен)</option>') == 2
    assert "177" in page
    assert "отличается" in page
    assert "Без внутреннего номера: " in page
    assert HOSTILE not in page
    assert "data-when-changed hidden" in page


def test_a_crm_that_does_not_answer_and_one_without_managers_say_so() -> None:
    assert "CRM не отдала список" in managers(found=None, problem=HOSTILE)
    assert HOSTILE not in managers(found=None, problem=HOSTILE)
    assert "В CRM нет менеджеров" in managers(found=SimpleNamespace(items=[], alarms=[]))


def test_the_probe_shows_the_decision_and_its_time() -> None:
    decision = SimpleNamespace(status="found", extension="150", name=HOSTILE, reason="")
    page = Views().render("integrations/probe.html", "ru", {"decision": decision, "took_ms": 12.4, "phone": "1"})
    assert "найден" in page
    assert "12 мс" in page
    assert HOSTILE not in page


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (127, "2:07"), (3909, "1:05:09"), (None, "–")])
def test_durations_read_like_a_clock(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(("number", "shown"), [("+375296254070", "+375 29 625-40-70"), ("150", "150"), ("+<b>", "+<b>"), (None, "–")])
def test_phone_numbers_are_grouped_where_that_is_sure(number: str | None, shown: str) -> None:
    assert phone(number) == shown


@pytest.mark.parametrize(
    ("typed", "day"),
    [("21.11.2026", "2026-11-21"), (" 1.2.2026 ", "2026-02-01"), ("21/11/2026", "2026-11-21"), ("2026-11-21", "2026-11-21"), ("soon", "soon"), ("", "")],
)
def test_a_day_is_read_as_people_write_it(typed: str, day: str) -> None:
    assert typed_day(typed) == day


def test_a_day_is_shown_as_the_language_writes_it_and_reads_back() -> None:
    template = '{% from "components.html" import day_input with context %}{{ day_input("from", "x", day) }}'
    for language, shown in (("ru", "21.11.2026"), ("en", "2026-11-21")):
        views = Views()
        page = views._environments[language].from_string(template).render(day="2026-11-21", language=language)
        assert f'value="{shown}"' in page
        assert typed_day(shown) == "2026-11-21"
        assert 'value=""' in views._environments[language].from_string(template).render(day="", language=language)


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36", "Chrome, Linux"),
        ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 YaBrowser/25.8 Mobile Safari/537.36", "Yandex, Android"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile/15E148 Safari/604.1", "Safari, iPhone"),
        ("curl/8.5.0", "curl/8.5.0"), ("", "–"), (None, "–"), ("x" * 200, "x" * 40),
    ],
)  # fmt: skip
def test_a_browser_is_called_as_people_call_it(agent: str | None, shown: str) -> None:
    assert browser(agent) == shown


def test_the_sync_block_shows_how_far_it_is_and_what_failed() -> None:
    errors = [{"id": 7, "local_type": "user", "local_id": 12, "remote_type": "contact", "remote_id": None, "error_type": "auth", "message": HOSTILE,
               "attempts": 3, "next_try_at": None}]  # fmt: skip
    context: dict[str, Any] = {
        "base": "/e/0367/integrations/bitrix24", "jobs": [
            {"state": "running", "direction": "to", "total": 120, "done": 40, "failed": 2, "error": None, "created_at": "2026-11-21T10:00:00Z"},
            {"state": "done", "direction": "from", "total": 7, "done": 7, "failed": 0, "error": None, "created_at": "2026-11-20T10:00:00Z"},
        ],
        "errors": errors, "errors_total": 9, "counts": {"total_mappings": 40, "last_sync_time": None}, "records": {"waiting": 5, "sending": 1, "dead": 1},
        "problem": "", "csrf": "t", "zone": "Europe/Minsk", "language": "ru", "visit": SimpleNamespace(may=lambda _: True), "pairs": [],
        "portal": "https://lab.example", "records_root": "/e/0367/records",
        "plurals": {"user": "users", "company": "companies", "object": "objects", "contract": "contracts"},
    }  # fmt: skip
    page = Views().render("integrations/sync.html", "ru", context)
    assert "40 из 120, с ошибкой 2" in page
    assert 'hx-trigger="every 2s"' in page
    assert page.count("disabled") == 2
    assert "7 из 7" in page
    assert 'href="/e/0367/records/users/12"' in page
    assert "пользователь 12" in page
    assert "нет прав" in page
    assert "Всего ошибок: 9" in page
    assert "/sync/errors/7/retry" in page
    assert HOSTILE not in page
    waits = Views().render("integrations/sync.html", "en", {**context, "jobs": []})
    assert 'hx-trigger="every 5s"' in waits
    over = {"jobs": [], "errors": [], "records": {"waiting": 0, "sending": 0, "dead": 0}, "visit": SimpleNamespace(may=lambda _: False)}
    ended = Views().render("integrations/sync.html", "en", {**context, **over})
    assert "hx-trigger" not in ended
    assert "<button" not in ended


def test_a_template_is_compiled_once_and_a_directory_that_may_not_be_written_hinders_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, context = tmp_path / "kept", {"items": ["Кран · № 7"]}
    first = Views(kept).render("records/options.html", "ru", context)
    assert [one.name.partition(".")[0] for one in kept.iterdir()] == ["ru"]
    with monkeypatch.context() as broken:
        broken.setattr("jinja2.environment.Environment._generate", None)  # nothing may be compiled now
        assert Views(kept).render("records/options.html", "ru", context) == first
    assert Views(tmp_path / "there" / "is none").render("records/options.html", "ru", context) == first
