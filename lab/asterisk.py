"""Real Asterisks on loopback: a cached Debian root built by debootstrap, and instances started in it.

Needs root (debootstrap and chroot). Versions: 22 from Debian sid, 16 from bullseye.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SUITES = {22: "sid", 16: "bullseye"}
PACKAGES = {22: "asterisk,ca-certificates", 16: "asterisk,asterisk-voicemail,ca-certificates"}
START_DEADLINE_S = 60.0


class LabUnavailable(Exception):
    """The lab cannot be had on this machine; says why and the exact command that would help."""


def cache_dir() -> Path:
    """Where built roots are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vochid"


def apt_mirror() -> str:
    """The mirror that this machine's apt is configured with."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for source in sources:
        for line in source.read_text(errors="replace").splitlines() if source.is_file() else []:
            found = re.match(r"\s*(?:deb\s+(?:\[[^]]*\]\s+)?|URIs:\s*)(https?://\S+/debian/?)(?:\s|$)", line)
            if found:
                return found[1]
    raise LabUnavailable("apt on this machine has no Debian mirror configured (deb line or URIs: in /etc/apt)")


def ensure_root(version: int = 22, *, quiet: bool = False) -> Path:
    """The root directory of Asterisk `version`, built when it is not there yet (about a minute).

    Raises LabUnavailable when not root, or when it cannot be built.
    """
    if os.geteuid() != 0:
        raise LabUnavailable("a real Asterisk is installed with debootstrap, which needs root: run `sudo make demo` (or `sudo make test`)")
    root = cache_dir() / f"asterisk-{version}"
    if (root / "usr/sbin/asterisk").exists():
        return root
    if shutil.which("debootstrap") is None:
        _say(quiet, "installing debootstrap")
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "debootstrap"])
    root.parent.mkdir(parents=True, exist_ok=True)
    building = root.with_name(f"{root.name}.building-{os.getpid()}")
    _say(quiet, f"building Asterisk {version} (Debian {SUITES[version]}), once, about a minute")
    try:
        _run(["debootstrap", "--variant=minbase", f"--include={PACKAGES[version]}", SUITES[version], str(building), apt_mirror()])
        shutil.rmtree(building / "var/cache/apt", ignore_errors=True)
        building.rename(root)
    except OSError:
        if not root.exists():  # another run was faster
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        print(f"lab: {text}", file=sys.stderr, flush=True)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise LabUnavailable(f"`{' '.join(command[:3])} …` failed: {' / '.join(tail)}")


def write_config(directory: Path, files: dict[str, str]) -> None:
    """Writes configuration files by name below `directory`."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


ASTERISK_CONF = """[directories](!)
[directories]
astetcdir => /lab/{name}/etc
astmoddir => /{modules}
astvarlibdir => /lab/{name}/var
astdbdir => /lab/{name}/var
astkeydir => /lab/{name}/var
astdatadir => /usr/share/asterisk
astagidir => /lab/{name}/var
astspooldir => /lab/{name}/spool
astrundir => /lab/{name}/run
astlogdir => /lab/{name}/log
astsbindir => /usr/sbin
[options]
nocolor = yes
live_dangerously = no
"""


@dataclass
class Asterisk:
    """One running instance. `directory` is its folder as this process sees it."""

    root: Path
    name: str
    process: asyncio.subprocess.Process | None = None

    @classmethod
    def prepare(cls, root: Path, label: str, files: dict[str, str]) -> Asterisk:
        """Lays out an instance of its own; `files` go into its etc directory."""
        instance = cls(root, f"{label}-{os.getpid()}-{secrets.token_hex(3)}")
        for folder in ("etc", "var", "spool/monitor", "spool/voicemail", "spool/tmp", "run", "log/cdr-csv"):
            (instance.directory / folder).mkdir(parents=True, exist_ok=True)
        modules = next(path.parent for path in root.glob("usr/lib/**/asterisk/modules/chan_pjsip.so"))
        conf = ASTERISK_CONF.format(name=instance.name, modules=modules.relative_to(root))
        write_config(instance.directory / "etc", {"asterisk.conf": conf, **files})
        return instance

    @property
    def directory(self) -> Path:
        return self.root / "lab" / self.name

    @property
    def pbx_directory(self) -> str:
        """The same folder as Asterisk names it."""
        return f"/lab/{self.name}"

    async def start(self, ami_port: int) -> None:
        """Starts it and waits until its manager port greets; RuntimeError with the log's tail when it does not."""
        with (self.directory / "log/console").open("wb") as console:
            self.process = await asyncio.create_subprocess_exec(
                "chroot", str(self.root), "asterisk", "-C", f"{self.pbx_directory}/etc/asterisk.conf", "-f",
                stdout=console, stderr=console, stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        deadline = asyncio.get_running_loop().time() + START_DEADLINE_S
        while asyncio.get_running_loop().time() < deadline and self.process.returncode is None:
            if "fully booted" in await self.cli("core waitfullybooted") and await _greets(ami_port):
                return
            await asyncio.sleep(0.1)
        tail = (self.directory / "log/console").read_text(errors="replace")[-1500:]
        await self.stop()
        raise RuntimeError(f"Asterisk did not start: {tail}")

    async def cli(self, command: str) -> str:
        """Runs one console command."""
        process = await asyncio.create_subprocess_exec(
            "chroot", str(self.root), "asterisk", "-C", f"{self.pbx_directory}/etc/asterisk.conf", "-rx", command,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        output, _ = await process.communicate()
        return output.decode("utf-8", "replace")

    async def stop(self, *, keep: bool = False) -> None:
        """Ends the process by its pid and removes its folder."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), 30)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)


async def _greets(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        line = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        return line.startswith(b"Asterisk Call Manager")
    except (OSError, TimeoutError):
        return False
