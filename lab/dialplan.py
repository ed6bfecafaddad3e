"""What a dialplan does with a FastAGI server: asks, obeys, and reads AGISTATUS; for tests and benchmarks without a PBX."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field

_SET = re.compile(rb'SET VARIABLE "?(\w+)"? "(.*)"\n', re.DOTALL)


@dataclass
class Asked:
    """What came of one AGI(): its variables, AGISTATUS as Asterisk would set it, and how long it took."""

    variables: dict[str, str] = field(default_factory=dict)
    agistatus: str = "SUCCESS"
    took_ms: float = 0.0


def environment(*arguments: str, script: str = "smart-redirect", caller: str = "+375296254070", uniqueid: str = "1763701800.1") -> bytes:
    """What Asterisk sends first."""
    pairs = [
        ("agi_network", "yes"), ("agi_network_script", script), ("agi_request", f"agi://127.0.0.1/{script}"), ("agi_channel", "PJSIP/provider-0000001a"),
        ("agi_language", "en"), ("agi_type", "PJSIP"), ("agi_uniqueid", uniqueid), ("agi_version", "22.0.0"), ("agi_callerid", caller),
        ("agi_calleridname", "unknown"), ("agi_callingpres", "0"), ("agi_callingani2", "0"), ("agi_callington", "0"), ("agi_callingtns", "0"),
        ("agi_dnid", "unknown"), ("agi_rdnis", "unknown"), ("agi_context", "from-trunk"), ("agi_extension", "s"), ("agi_priority", "4"),
        ("agi_enhanced", "0.0"), ("agi_accountcode", ""), ("agi_threadid", "140000000000000"),
        *((f"agi_arg_{number}", value) for number, value in enumerate(arguments, 1)),
    ]  # fmt: skip
    return "".join(f"{name}: {value}\n" for name, value in pairs).encode() + b"\n"


async def ask(address: str, *arguments: str, deadline_s: float = 60.0, **more: str) -> Asked:
    """One AGI() against `host:port`. Raises TimeoutError when the server holds the call beyond `deadline_s`."""
    host, _, port = address.rpartition(":")
    asked, started = Asked(), time.perf_counter()
    async with asyncio.timeout(deadline_s):
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            asked.agistatus = "FAILURE"
            return asked
        try:
            writer.write(environment(*arguments, **more))
            while line := await reader.readline():
                if line.startswith(b"failure"):
                    asked.agistatus = "FAILURE"
                    break
                found = _SET.fullmatch(line)
                if found is not None:
                    asked.variables[found[1].decode()] = re.sub(rb"\\(.)", rb"\1", found[2]).decode()
                writer.write(b"200 result=1\n" if found else b"510 Invalid or unknown command\n")
        except ConnectionError:
            pass
        finally:
            writer.close()
    asked.took_ms = (time.perf_counter() - started) * 1000
    return asked
