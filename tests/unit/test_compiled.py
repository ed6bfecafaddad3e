"""The compiled call model says what the written one says, and never stands in for sources that are no longer those it was made from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.calls.correlator import Correlator
from daemon.calls.replay import read_trace
from daemon.compiled import MODULES, ROOT, TYPES, place, runs_compiled, source
from tests.golden.view import VIEW

TRACES = sorted((ROOT / "tests/golden").glob("*/*.ami"))
WHERE = "import daemon.calls.rules as rules, daemon.calls.correlator; print(rules.__file__)"
needs_compiled = pytest.mark.skipif(not runs_compiled(), reason="this process runs the modules as they are written: `make setup` compiles them")


def told(trace: Path) -> str:
    """Everything that the model says of a recording, in words."""
    model, last = Correlator(VIEW), 0.0
    lines = []
    for event, last in read_trace(trace.name, trace.read_bytes(), trace.with_name(trace.name + ".json").read_bytes()):
        lines += [repr(change) for change in model.feed(event, last)]
    return "\n".join(lines + [repr(change) for change in model.tick(last + 60.0)])


def run(code: str, root: Path = ROOT, switch: str = "1") -> str:
    """What `code` prints in an interpreter of its own that imports from `root`."""
    environment = {**os.environ, "PYTHONPATH": str(root), "VOCHID_COMPILED": switch}
    return subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True).stdout


@needs_compiled
def test_both_forms_tell_every_recording_in_the_same_words() -> None:
    code = "from tests.unit.test_compiled import TRACES, told, runs_compiled; assert not runs_compiled(); print(*map(told, TRACES), sep='\\n\\n')"
    compiled = "\n\n".join(map(told, TRACES))
    assert compiled.count("CallChange(") > 3 * len(TRACES)
    assert run(code, switch="0").rstrip("\n") == compiled


@needs_compiled
def test_an_edited_source_is_never_shadowed_by_what_was_compiled_before(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "daemon", tmp_path / "daemon", ignore=shutil.ignore_patterns("__pycache__"))
    assert Path(run(WHERE, tmp_path).strip()).is_relative_to(place())
    with source("daemon.calls.graph", tmp_path).open("a") as file:
        file.write("\n")
    assert Path(run(WHERE, tmp_path).strip()) == source("daemon.calls.rules", tmp_path)


@needs_compiled
def test_it_can_be_switched_off() -> None:
    assert Path(run(WHERE, switch="0").strip()) == source("daemon.calls.rules")


@pytest.mark.parametrize("module", [*MODULES, *TYPES])
def test_every_source_that_a_build_depends_on_names_the_build(module: str, tmp_path: Path) -> None:
    for name in ("daemon.compiled", *MODULES, *TYPES):
        source(name, tmp_path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source(name), source(name, tmp_path))
    assert place(tmp_path) == place()
    source(module, tmp_path).write_bytes(source(module).read_bytes() + b"\n")
    assert place(tmp_path) != place()


@pytest.mark.parametrize("module", MODULES)
def test_what_a_compiled_module_imports_of_ours_is_known(module: str) -> None:
    imported = {line.split()[1] for line in source(module).read_text().splitlines() if line.strip().startswith("from daemon.")}
    assert imported <= {*MODULES, *TYPES}


def test_a_directory_without_sources_has_no_compiled_form(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="compiled"):
        place(tmp_path)
