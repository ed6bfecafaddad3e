"""Runs the faults and prints the account: one row each. Exits 1 on a loss, a double, a wrong order or something that did not go on.

python -m lab.chaos                        everything, 200 deaths of the daemon
python -m lab.chaos F3-lines F13 --scale 0.2     some rows, a fifth as long
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
import traceback
from pathlib import Path

from lab.chaos.catalogue import ROWS
from lab.chaos.report import table, written_into
from lab.chaos.rows import Row, Size


async def run_row(name: str, size: Size) -> Row:
    """One row; what it raises is written into it."""
    fault, run = ROWS[name]
    row, started = Row(name, fault), time.monotonic()
    try:
        await run(row, size)
    except Exception as error:
        traceback.print_exc()
        row.notes.append(f"NOT SURVIVED: {type(error).__name__}: {str(error)[:300]}")
        row.survived = min(row.survived, row.tried - 1)
    row.seconds = time.monotonic() - started
    return row


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all without any")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no more deaths after so long")
    parser.add_argument("--scale", type=float, default=1.0, help="of everything else: 0.1 is a tenth")
    parser.add_argument("--write", type=Path, help="a document whose table gets these rows: docs/promises.md")
    chosen = parser.parse_args()
    wanted = [name for name in ROWS if not chosen.rows or name in chosen.rows]
    if not wanted:
        parser.error(f"there is no such row; there are {', '.join(ROWS)}")
    done = []
    for name in wanted:
        print(f"{name}: {ROWS[name][0]} …", file=sys.stderr, flush=True)
        row = asyncio.run(run_row(name, Size(chosen.seed, chosen.kills, chosen.minutes, chosen.scale)))
        done.append(row)
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
        for wrong in row.account.wrong[:40]:
            print(f"    {wrong}", file=sys.stderr, flush=True)
    print(table(done))
    if chosen.write is not None:
        chosen.write.write_text(written_into(chosen.write.read_text(), done, list(ROWS)))
    return 0 if all(row.is_good for row in done) else 1


if __name__ == "__main__":
    sys.exit(main())
