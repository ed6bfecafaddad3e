"""Faults that can only be made inside the daemon's process. Python imports this by itself where PYTHONPATH leads here (lab/chaos/rows).

VOCHID_CHAOS_CLOCK names a file with one double: so many seconds the process's clock is off. SIGUSR2 blocks the event loop, as a bug would.
"""

import mmap
import os
import signal
import struct
import time

_CLOCK = os.environ.get("VOCHID_CHAOS_CLOCK")
if _CLOCK:
    _real = time.time
    with open(_CLOCK, "rb") as _file:
        _off = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)
    time.time = lambda: _real() + struct.unpack_from("d", _off)[0]  # type: ignore[assignment,unused-ignore]

    def _stand_still(*_: object) -> None:
        os.write(2, b"standing still\n")
        time.sleep(120)

    signal.signal(signal.SIGUSR2, _stand_still)
