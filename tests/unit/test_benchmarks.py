"""What `make bench-check` calls a regression, and that its ratios are of paths that are still measured."""

from __future__ import annotations

import json

from benchmarks import ami_ingest, ratios
from benchmarks.over_sockets import NPM_PEERS, npm_is_missing


def test_a_fifth_less_is_allowed_and_more_is_a_regression() -> None:
    assert ratios.regressions({"a": 0.5, "b": 0.5}, {"a": 0.401, "b": 0.9}) == {}
    assert ratios.regressions({"a": 0.5}, {"a": 0.39}) == {"a": 0.78}


def test_a_path_that_is_gone_or_was_never_stored_is_a_regression() -> None:
    assert ratios.regressions({"gone": 0.5}, {"new": 0.5}) == {"gone": 0.0, "new": 0.0}


def test_what_is_stored_is_what_is_measured_and_says_where_it_was_taken() -> None:
    stored = json.loads(ratios.STORED.read_text())
    assert stored["ratios"].keys() == ratios._readers().keys() - {ratios.FLOOR}
    assert stored["taken"].keys() >= {"machine", "python", "compiled"}


def test_the_readers_are_handed_every_event_or_none_of_the_noise() -> None:
    chunks = ami_ingest.corpus()[:20]
    events = ami_ingest.events_in(chunks)
    assert abs(ami_ingest.ingest()["vochid"]()(chunks) - events) <= 1  # the last one may be cut
    assert ami_ingest.skipping()["vochid"]()(chunks) < events // 100  # the answers among the recordings


def test_the_peers_from_npm_are_those_that_are_installed() -> None:
    package = json.loads((ratios.STORED.parent / "node/package.json").read_text())
    assert set(package["dependencies"]) == set(NPM_PEERS)
    assert npm_is_missing() is None or any(name in (npm_is_missing() or "") for name in ("node", *NPM_PEERS))
