"""HTTP endpoint `POST /notices` for interruption notices from agents' instance metadata.

The leader accepts a notice; other autoscalers answer 503. A notice must come from the address of
the machine that it names. The agent repeats it until the answer is `known`, so the endpoint stores
nothing. Depends on `notice_queue` and aiohttp.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from mesaform.autoscaler.observation.notice_queue import Inbox
from mesaform.topology.user_data import NOTICES_PATH, MachineNotice


class NoticeEndpoint:
    """Endpoint of a process. `inbox` is that of the leader, None while another process leads."""

    def __init__(self) -> None:
        self.inbox: Inbox | None = None

    def add_to(self, app: web.Application) -> web.Application:
        app.router.add_post(NOTICES_PATH, self._receive)
        return app

    async def _receive(self, request: web.Request) -> web.Response:
        if self.inbox is None:
            return web.Response(status=503, text="another autoscaler leads\n")
        try:
            notice = msgspec.json.decode(await request.read(), type=MachineNotice)
            known = self.inbox.report(notice, request.remote or "")
        except (msgspec.DecodeError, ValueError) as error:
            return web.Response(status=400, text=f"{error}\n")
        except PermissionError as error:
            return web.Response(status=403, text=f"{error}\n")
        return web.json_response({"known": known})
