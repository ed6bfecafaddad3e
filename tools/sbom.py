"""The bill of materials of a lock file: CycloneDX 1.6 as JSON. `python tools/sbom.py requirements.lock build/sbom.json`"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def components(lock: str) -> list[dict[str, object]]:
    """One for every `name==version`, with the hashes of its files."""
    found = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock.strip()):
        named = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", block)
        if named is None:
            continue
        name, version = re.sub(r"[-_.]+", "-", named[1]).lower(), named[2]
        purl = f"pkg:pypi/{name}@{version}"
        hashes = [{"alg": "SHA-256", "content": content} for content in sorted(set(re.findall(r"sha256:([0-9a-f]{64})", block)))]
        found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "hashes": hashes})
    return found


def sbom(lock: str) -> dict[str, object]:
    """The whole document."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    about = {"type": "application", "name": project["name"], "version": project["version"], "licenses": [{"license": {"id": project["license"]}}]}
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": about}, "components": components(lock)}


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    made = sbom(source.read_text())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(made, indent=1) + "\n")
    print(f"{target}: {len(made['components'])} components")  # type: ignore[arg-type]
