"""Store of the weekly profile in S3. Shell around `forecasting.weekly_profile`.

The profile is not part of the journal: the journal is written as a whole with each change, is read
in every term and must stay below a megabyte. Eight weeks of slots are about 130 KB a pool, change
four times an hour, and the loss of a quarter of an hour is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from mesaform.autoscaler.demand.scheduled import levels
from mesaform.autoscaler.demand.usage import in_use
from mesaform.autoscaler.forecasting import weekly_profile
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.weekly_profile import Profile
from mesaform.aws.ports import Control
from mesaform.common.errors import MesaformError
from mesaform.common.records import DOCUMENT_LIMIT_BYTES, Codec, Unreadable

NAME = "profile"
PROFILE = Codec("autoscaler.profile", Profile, limit_bytes=DOCUMENT_LIMIT_BYTES)
AGAIN_S = 60.0

log = structlog.get_logger()


class Learner:
    """Learns and stores the profile during one term. `known` is None until S3 was read."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._saved: Mapping[str, Any] | None = None  # the pools as they stand in S3
        self._try_at = 0.0
        self.known: Profile | None = None

    async def begin(self, now: float) -> None:
        """Read the stored profile. When S3 does not answer, a later pass repeats the call."""
        if self.known is not None or now < self._try_at:
            return
        try:
            kept = await asyncio.to_thread(self._control.read_record, NAME, PROFILE)
        except MesaformError as error:
            self._try_at = now + AGAIN_S
            log.warning("what past weeks were like cannot be read", error=str(error))
            return
        self.known = weekly_profile.resume(readable(kept), now)
        self._saved = self.known.pools

    async def learn(self, snapshot: Snapshot, now: float) -> None:
        """Add a pass to the profile, and store each slot that ends."""
        if self.known is None or snapshot.cluster is None:
            return
        self.known = weekly_profile.learn(self.known, levels(in_use(snapshot, ())), now)
        if (
            self.known.pools is not self._saved
            and self.known.pools != self._saved
            and now >= self._try_at
        ):
            try:
                await asyncio.to_thread(self._control.write_record, NAME, PROFILE, self.known)
                self._saved = self.known.pools
            except MesaformError as error:
                self._try_at = now + AGAIN_S
                log.warning("what past weeks were like cannot be written", error=str(error))


def readable(record: Profile | Unreadable | None) -> Profile:
    """Return the stored profile; an empty one if none exists or it was set aside."""
    return record if isinstance(record, Profile) else Profile()
