"""HTTP endpoint `POST /notices` for interruption notices from agents' instance metadata.

The leader accepts a notice; other autoscalers answer 503. A notice must come from the machine that
it names: from its address, with its proof. The agent repeats it until the answer is `known`, so the
endpoint stores nothing. Depends on `notice_queue` and aiohttp.
"""

from __future__ import annotations

from aiohttp import web

from mesaform.autoscaler.observation.agent_proof import require_instance
from mesaform.autoscaler.observation.notice_queue import Inbox
from mesaform.http import BadRequest, decode_json
from mesaform.topology.instance_identity import InstanceVerifier
from mesaform.topology.user_data import NOTICES_PATH, MachineNotice


class NoticeEndpoint:
    """Endpoint of a process. `inbox` is that of the leader, None while another process leads.

    `verifier` verifies the sender; without one its address must do.
    """

    def __init__(self, verifier: InstanceVerifier | None = None) -> None:
        self._verifier = verifier
        self.inbox: Inbox | None = None

    def add_to(self, app: web.Application) -> web.Application:
        app.router.add_post(NOTICES_PATH, self._receive)
        return app

    async def _receive(self, request: web.Request) -> web.Response:
        if self.inbox is None:
            raise web.HTTPServiceUnavailable(text="another autoscaler leads")
        notice = await decode_json(request, MachineNotice)
        require_instance(request, self._verifier, notice.instance_id)
        inbox = self.inbox  # leadership may have ended while the body arrived
        if inbox is None:
            raise web.HTTPServiceUnavailable(text="another autoscaler leads")
        try:
            known = inbox.report(notice, request.remote or "")
        except ValueError as error:
            raise BadRequest(str(error)) from None
        except PermissionError as error:
            raise BadRequest(str(error), 403) from None
        return web.json_response({"known": known})
