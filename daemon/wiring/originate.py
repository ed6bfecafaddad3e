"""Click-to-call, joined to the PBXs' links and to what the call model hears."""

from __future__ import annotations

import time

from daemon.ami.link import Link
from daemon.calls.rules import call_id
from daemon.model.call import Call, Direction, Result
from daemon.model.signal import CallChange, Ended
from daemon.originate.follow import Follower
from daemon.originate.service import Elsewhere, OriginateService
from daemon.originate.states import Progress
from daemon.store.calls import CallRepository
from daemon.store.leases import PbxKey
from daemon.store.originates import OriginateRepository, OriginateRequest
from daemon.store.pool import Database
from daemon.tenants.service import Tenants
from daemon.wiring.pbxs import Pbxs

_RESULTS = {"manager_no_answer": Result.NO_ANSWER, "manager_busy": Result.BUSY, "manager_rejected": Result.REJECTED}


class Originating:
    """The service and what follows its requests, with their hooks on the PBXs set."""

    def __init__(self, db: Database, tenants: Tenants, pbxs: Pbxs, elsewhere: Elsewhere | None = None) -> None:
        self._pbxs = pbxs
        repository = OriginateRepository(db)
        self.follower = Follower(repository, CallRepository(db), self._link, self._record)
        self.service = OriginateService(tenants, repository, self.follower, pbxs.link, elsewhere)
        pbxs.watchers["OriginateResponse"] = self.follower.responded
        pbxs.on_stored.append(self.follower.stored)
        pbxs.on_up.append(self.follower.link_up)

    def _link(self, key: PbxKey) -> Link | None:
        return self._pbxs.fleet.links.get(key)

    async def _record(self, request: OriginateRequest, progress: Progress) -> None:
        """A call that the PBX could not even begin is a call all the same: it is stored, journaled, and its popup closed."""
        key = request.enterprise, request.pbx
        feed = self._pbxs.feeds.get(key)
        if feed is None:
            return
        now = time.time()
        call = Call(
            id=call_id(feed.view, request.channel_id),
            enterprise=request.enterprise,
            pbx=request.pbx,
            linkedid=request.channel_id,
            direction=Direction.OUT,
            started_at=min(request.created_at.timestamp(), now),
            customer_number=request.phone,
            line=request.line,
            ended_at=now,
            result=_RESULTS.get(progress.code or "", Result.UNAVAILABLE),
            initiator=request.extension,
            click_to_call=True,
        )
        await self._pbxs.record(key, CallChange(call, (Ended((request.extension,)),), now))
