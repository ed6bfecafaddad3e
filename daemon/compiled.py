"""The call model, and AMI's frames that it reads, run compiled where `make setup` found a C compiler.

The same sources, translated by mypyc (docs/decisions/0009-compiled-call-model.md). What was compiled lies outside of the source tree, in
a directory named by a hash of everything it was made from, and is imported only from the directory of the sources that are here now:
an edited source has none and runs as it is written.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SWITCH = "VOCHID_COMPILED"  # 0: the modules as they are written
# All or none: compiled classes know each other's layout. In the order of their imports.
MODULES = (
    "daemon.ami.wire", "daemon.calls.graph", "daemon.calls.parties", "daemon.calls.rules", "daemon.calls.telling", "daemon.calls.facts",
    "daemon.calls.on_channels", "daemon.calls.on_dials", "daemon.calls.on_bridges", "daemon.calls.on_moves", "daemon.calls.correlator",
)  # fmt: skip
# Not compiled, but their types are compiled into the others.
TYPES = ("daemon.calls.view", "daemon.model.call", "daemon.model.immutable", "daemon.model.phone", "daemon.model.signal")
_SUFFIX = EXTENSION_SUFFIXES[0]
_SHARED = "__mypyc"  # how the name of the library ends in which mypyc puts the code of all modules


def source(module: str, root: Path = ROOT) -> Path:
    """Where a module is written."""
    return root / (module.replace(".", "/") + ".py")


def place(root: Path = ROOT) -> Path:
    """Where the compiled form of the sources under `root` lies when it was made, for this interpreter. Raises OSError without sources."""
    digest = hashlib.sha256(_SUFFIX.encode())
    for path in (root / "daemon/compiled.py", *(source(module, root) for module in (*MODULES, *TYPES))):
        text = path.read_bytes()
        digest.update(b"%d\0" % len(text) + text)
    return Path(sys.prefix) / "compiled" / digest.hexdigest()[:32]


class CompiledFinder(MetaPathFinder):
    """Finds the compiled modules in `directory`, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in MODULES and not fullname.endswith(_SHARED):
            return None
        file = self._directory / (fullname.replace(".", "/") + _SUFFIX)
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file))) if file.is_file() else None


def prefer() -> None:
    """From now on imports take the compiled modules, when there are some of these very sources and VOCHID_COMPILED is not 0."""
    if os.environ.get(SWITCH) == "0":
        return
    try:
        directory = place()
    except OSError:
        return  # installed without sources
    if directory.is_dir():
        sys.meta_path.insert(0, CompiledFinder(directory))


def runs_compiled() -> bool:
    """Whether this process runs the compiled call model."""
    return any(isinstance(finder, CompiledFinder) for finder in sys.meta_path)
