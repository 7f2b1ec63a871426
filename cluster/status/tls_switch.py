"""Whether masters still speak the scheme from before `tls` changed in the cluster file.

While masters are replaced one at a time, those that are not replaced yet answer the other scheme,
and neither agents nor the other masters talk to the replaced ones. Depends on aiohttp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiohttp

from mesaform.config.schema import ClusterSpec
from mesaform.status.ready import Missing, missing, missing_masters
from mesaform.status.view import MasterView, Sources, Status, reachable
from mesaform.topology.ports import Port

PROBE_TIMEOUT_S = 2.0
PROBES = {Port.ENGINE_MASTER: "/health", Port.SERVICES: "/ping"}


class TlsSwitch:
    """What is missing while masters are replaced; remembers that there was a switch.

    `is_under_way` stays true: agents of before can join only once they are replaced as well.
    """

    def __init__(self, spec: ClusterSpec) -> None:
        self._spec = spec
        self.is_under_way = False

    async def missing(self, picture: Status, sources: Sources) -> tuple[Missing, ...]:
        """The missing parts: of masters alone while a switch is under way."""
        masters, services = sources.masters_up, sources.services_up
        silent = [view for view in picture.masters if view.address not in masters & services]
        former = await self._former(silent)
        if former:
            self.is_under_way = True
        if not self.is_under_way:
            return missing(picture, self._spec, sorted(masters), sorted(services))
        up = (masters | former, services | former)
        return missing_masters(picture, self._spec, sorted(up[0]), sorted(up[1]))

    async def _former(self, silent: Iterable[MasterView]) -> frozenset[str]:
        """The masters whose two ports answer the other scheme."""
        views = list(silent)
        if not views:
            return frozenset()
        async with aiohttp.ClientSession() as session:
            answers = await asyncio.gather(*(self._answers(session, view) for view in views))
        return frozenset(view.address for view, is_up in zip(views, answers, strict=True) if is_up)

    async def _answers(self, session: aiohttp.ClientSession, view: MasterView) -> bool:
        """Whether something answers; what it says does not count, so nothing is verified."""
        scheme = "http" if self._spec.tls else "https"
        host = reachable(view.address, view.public_address, self._spec.target)
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        for port, path in PROBES.items():
            url = f"{scheme}://{host}:{port}{path}"
            try:
                async with session.get(url, timeout=timeout, ssl=False, allow_redirects=False):
                    pass
            except (aiohttp.ClientError, OSError, TimeoutError):
                return False
        return True
