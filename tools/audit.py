"""pip-audit over a lock file: status 1 for a known hole; what could not be looked up is said, and is no failure.

`python tools/audit.py build/audit/bin/pip-audit requirements.lock`
"""

from __future__ import annotations

import json
import subprocess
import sys


def main(program: str, lock: str) -> int:
    """The exit status."""
    command = [program, "--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--requirement", lock]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"audit: nothing was looked up: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return 0
    holes, skipped = [one for one in packages if one.get("vulns")], sum("skip_reason" in one for one in packages)
    for one in holes:
        for hole in one["vulns"]:
            print(f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'nothing yet'}")
    print(f"audit: {len(packages) - skipped} of {len(packages)} packages looked up, {len(holes)} with known holes")
    if skipped:
        print("audit: the advisory service does not know the rest from here: run it where PyPI itself is reached", file=sys.stderr)
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
