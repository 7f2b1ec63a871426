"""HTTP endpoint `POST /shutdown-reports`, where agents say that and why they terminate themselves.

Every autoscaler takes them, whether it leads or not: a machine reports when no autoscaler renewed
its lease. Depends on aiohttp.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from mesaform.autoscaler.observation.agent_proof import require_instance
from mesaform.common.errors import MesaformError
from mesaform.http import decode_json
from mesaform.topology.instance_identity import InstanceVerifier
from mesaform.topology.user_data import SHUTDOWN_REPORTS_PATH, ShutdownReport

Store = Callable[[ShutdownReport], Awaitable[None]]


class ShutdownEndpoint:
    """Endpoint of a process.

    Args:
        store: writes a report where the leader reads it.
        verifier: verifies the sender; without one no report is taken.

    """

    def __init__(self, store: Store, verifier: InstanceVerifier | None) -> None:
        self._store = store
        self._verifier = verifier

    def add_to(self, app: web.Application) -> web.Application:
        if self._verifier is not None:
            app.router.add_post(SHUTDOWN_REPORTS_PATH, self._receive)
        return app

    async def _receive(self, request: web.Request) -> web.Response:
        report = await decode_json(request, ShutdownReport)
        require_instance(request, self._verifier, report.instance_id)
        try:
            await self._store(report)
        except MesaformError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        return web.Response(status=204)
