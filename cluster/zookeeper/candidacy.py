"""Candidacy of a process that may resign: a leader that cannot work pauses before it is one again.

A new candidate queues behind all others, so another process leads meanwhile. Depends on
`common.conditions` and structlog.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from mesaform.common.conditions import Resignations, Resigned

USEFUL_TERM_S = 60.0
"""A term that lasted so long was useful: earlier resignations no longer count."""

log = structlog.get_logger("election")


class Candidacy:
    """The callback for `election.Candidate.run`.

    Args:
        work: leads until cancelled; `Resigned` gives the leadership up.
        resignations: where resignations are counted.
        clock: seconds with any origin, not going back.
        random: returns a number from 0 to 1.

    """

    def __init__(
        self,
        work: Callable[[int], Awaitable[None]],
        resignations: Resignations,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._work = work
        self._resignations = resignations
        self._clock = clock
        self._random = random

    async def lead(self, epoch: int) -> float:
        """Lead one term; return the seconds until the next candidacy after a resignation."""
        began = self._clock()
        try:
            await self._work(epoch)
        except Resigned as resigned:
            now = self._clock()
            if now - began >= USEFUL_TERM_S:
                self._resignations.worked()
            self._resignations.add(resigned, now, self._random())
            log.warning(
                "resigned, because this leader cannot work",
                reason=str(resigned),
                candidate_again_in_s=round(self._resignations.pause_s(now), 1),
                epoch=epoch,
            )
        return self._resignations.pause_s(self._clock())
