"""`POST /notices`: where agents tell what they read in their own metadata. The leader takes it; others say that they do not lead.

An agent is believed about itself only: what it says must come from that machine's own address. It tells again until it hears that the
autoscaler remembers (`known`), so nothing here has to be kept.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from mesaform.autoscaler.observation.notice_queue import Inbox
from mesaform.topology.user_data import NOTICES_PATH, MachineNotice


class Doorbell:
    """One per process; `inbox` is the term's, None while another leads."""

    def __init__(self) -> None:
        self.inbox: Inbox | None = None

    def add_to(self, app: web.Application) -> web.Application:
        app.router.add_post(NOTICES_PATH, self._told)
        return app

    async def _told(self, request: web.Request) -> web.Response:
        if self.inbox is None:
            return web.Response(status=503, text="another autoscaler leads\n")
        try:
            told = msgspec.json.decode(await request.read(), type=MachineNotice)
            known = self.inbox.tell(told, request.remote or "")
        except (msgspec.DecodeError, ValueError) as error:
            return web.Response(status=400, text=f"{error}\n")
        except PermissionError as error:
            return web.Response(status=403, text=f"{error}\n")
        return web.json_response({"known": known})
