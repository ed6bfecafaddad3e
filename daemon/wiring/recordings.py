"""The recordings room over tenants, outbox and adapters."""

from __future__ import annotations

from daemon.delivery.dispatcher import Dispatcher
from daemon.delivery.outbox import Outbox
from daemon.recordings.links import RecordingLinks
from daemon.recordings.mp3 import Mp3Cache, find_encoder
from daemon.recordings.remote import RemoteFiles
from daemon.recordings.service import Recordings
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.settings import Settings
from daemon.store.pool import Database
from daemon.tenants.service import Tenants
from daemon.wiring.crm import Crm


def open_recordings(
    settings: Settings, db: Database, tenants: Tenants, outbox: Outbox, crm: Crm, dispatcher: Dispatcher, vault: Vault, egress: EgressPolicy
) -> Recordings:
    """The service, and `crm` told of it; the caller must `stop` it."""

    def epoch(enterprise: str) -> int | None:
        tenancy = tenants.get(enterprise)
        return tenancy.recordings_epoch if tenancy else None

    links = RecordingLinks(vault.derived_keys("recordings"), epoch)
    mp3 = Mp3Cache(settings.data_dir / "recordings", find_encoder())
    room = Recordings(db, tenants, outbox, crm, dispatcher.wake, links, RemoteFiles(egress), mp3, settings.base_url)
    crm.recordings = room
    return room
