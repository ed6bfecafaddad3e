"""What documents claim to be proved by a test: each of those tests is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
DOCS = TESTS.parent / "docs"


@pytest.mark.parametrize("name", ["predecessor.md", "promises.md", "threat-model.md"])
def test_every_test_that_a_document_names_exists(name: str) -> None:
    named = re.findall(r"([a-z0-9_/]+\.py)::(test_\w+)", (DOCS / name).read_text())
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (TESTS / file).read_text(), f"{file}::{test}"
