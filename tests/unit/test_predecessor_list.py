"""docs/predecessor.md says which test proves which line: each of them is there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
LIST = TESTS.parent / "docs/predecessor.md"


def test_every_test_that_the_list_names_exists() -> None:
    named = re.findall(r"([a-z0-9_/]+\.py)::(test_\w+)", LIST.read_text())
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (TESTS / file).read_text(), f"{file}::{test}"
