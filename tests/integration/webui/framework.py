"""A framework with any name that launches one task with any name, for tests of the pages."""

from __future__ import annotations

import http.client
import json
from types import TracebackType
from typing import Any, Self

from mesaform.mesos.recordio import Decoder


class Framework:
    """Subscribed for the duration.

    Args:
        master: the leading master's address.
        name: of the framework.
        webui: the address that it says its page has.

    """

    def __init__(self, master: str, name: str, webui: str) -> None:
        self._master = master
        self._info = {
            "user": "root",
            "name": name,
            "roles": ["*"],
            "webui_url": webui,
            "capabilities": [{"type": "MULTI_ROLE"}],
        }
        self._records = Decoder()
        self._waiting: list[bytes] = []

    def __enter__(self) -> Self:
        self._connection = http.client.HTTPConnection(self._master, 5050, timeout=60)
        self._answer = self._post(
            self._connection, {"type": "SUBSCRIBE", "subscribe": {"framework_info": self._info}}, {}
        )
        assert self._answer.status == 200, self._answer.read()
        self._stream = {"Mesos-Stream-Id": self._answer.headers["Mesos-Stream-Id"]}
        self.id = self._next("SUBSCRIBED")["subscribed"]["framework_id"]["value"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.call({"type": "TEARDOWN"})
        self._connection.close()

    def launch(self, task_id: str, name: str, command: str) -> None:
        """Run this on the first offer; everything else that is offered is left to others."""
        offer, *others = self._next("OFFERS")["offers"]["offers"]
        self.call({"type": "SUPPRESS"})
        if others:
            self.call(
                {"type": "DECLINE", "decline": {"offer_ids": [offer["id"] for offer in others]}}
            )
        amounts = {"cpus": 0.1, "mem": 32}
        task = {
            "name": name,
            "task_id": {"value": task_id},
            "agent_id": offer["agent_id"],
            "resources": [
                {
                    "name": key,
                    "type": "SCALAR",
                    "scalar": {"value": value},
                    "role": "*",
                    "allocation_info": {"role": "*"},
                }
                for key, value in amounts.items()
            ],
            "command": {"value": command},
        }
        launch = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
        self.call(
            {"type": "ACCEPT", "accept": {"offer_ids": [offer["id"]], "operations": [launch]}}
        )

    def call(self, body: dict[str, Any]) -> None:
        connection = http.client.HTTPConnection(self._master, 5050, timeout=60)
        answer = self._post(connection, {"framework_id": {"value": self.id}, **body}, self._stream)
        assert answer.status == 202, answer.read()
        connection.close()

    @staticmethod
    def _post(
        connection: http.client.HTTPConnection, body: dict[str, Any], headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        connection.request(
            "POST",
            "/api/v1/scheduler",
            json.dumps(body),
            {"Content-Type": "application/json", **headers},
        )
        return connection.getresponse()

    def _next(self, kind: str) -> dict[str, Any]:
        while True:
            while not self._waiting:
                self._waiting = list(self._records.feed(self._answer.read1(65536)))
            event: dict[str, Any] = json.loads(self._waiting.pop(0))
            if event["type"] == kind:
                return event
