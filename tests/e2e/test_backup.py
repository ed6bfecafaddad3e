"""A backup beside a running daemon, restored elsewhere; with its keys everything goes on, without them it is said what is lost."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from lab.run import DaemonProcess, short_directory
from tests.e2e.conftest import NUMBER, House

ONE = f"/api/enterprises/{NUMBER}"


@pytest.mark.hasty("lease")  # the backup holds the lease of who is gone then
async def test_a_backup_is_restored_and_the_daemon_goes_on(embedded_house: House, tmp_path: Path) -> None:
    house, file = embedded_house, tmp_path / "vochid.dump"
    await house.daemon.put(house.document)
    await house.linked()
    await house.play("inbound-answered")
    await house.journaled(1)
    done = await asyncio.to_thread(house.cli, "backup", str(file))
    assert done.returncode == 0, done.stderr
    assert str(house.daemon.data_dir / "secret_keys") in done.stdout, "it says what else must be kept"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
    refused = await asyncio.to_thread(house.cli, "restore", str(file))
    assert refused.returncode == 1
    assert "not empty" in refused.stderr
    assert "there is no file" in (await asyncio.to_thread(house.cli, "restore", str(tmp_path / "nowhere"))).stderr

    await house.daemon.stop(keep=True)
    former = house.daemon.data_dir
    new = House(DaemonProcess(short_directory("vochid-e2e-"), patience=house.daemon.patience), house.pbx, house.crm)
    try:
        broken = tmp_path / "broken"
        broken.write_bytes(file.read_bytes()[:5_000])
        assert (await asyncio.to_thread(new.cli, "restore", str(broken))).returncode == 1, "half a backup leaves the database empty"
        restored = await asyncio.to_thread(new.cli, "restore", str(file))
        assert restored.returncode == 0, restored.stderr
        lost = await asyncio.to_thread(new.cli, "doctor", "--enterprise", NUMBER)
        assert f"FAIL  secrets: sealed with a key that is not here: of enterprise {NUMBER}" in lost.stdout, lost.stdout
        assert "Put the former key behind the new one" in lost.stdout

        shutil.copy(former / "secret_keys", new.daemon.data_dir / "secret_keys")
        house.pbx.connected.clear()
        await new.daemon.start()
        await new.linked()
        async with new.daemon.client() as api:
            assert len((await api.get(f"{ONE}/calls")).json()["items"]) == 1
            assert (await api.post(f"{ONE}/integrations/retailcrm/test")).json()["ok"], "the sealed key opens"
        await new.play("cyrillic-name")
        await new.journaled(2)
        assert len(house.crm.journal) == 2, "what was told before is not told again as another call"
    finally:
        await new.daemon.stop()
        shutil.rmtree(former, ignore_errors=True)
