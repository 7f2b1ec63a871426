"""A framework that holds offers and runs tasks, so that fuzzed calls meet real ones.

It uses only the standard library: it must work whatever the product's own clients do.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

INFO = {
    "user": "root",
    "name": "fuzz",
    "roles": ["*"],
    "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}],
}
SMALL = [
    {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
    {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
]


class LiveScheduler:
    """A subscribed scheduler. A thread reads its events and acknowledges updates.

    Attributes:
        offers: outstanding offers by id.
        tasks: the last state of each task by id.
        uuids: uuids of updates, with task and agent id, for calls that name real ones.

    """

    def __init__(self, host: str, port: int = 5050, *, agent_host: str) -> None:
        self.host, self.port, self.agent_host = host, port, agent_host
        self.is_closed = True
        self.framework_id = self.stream_id = ""
        self.offers: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, str] = {}
        self.uuids: deque[dict[str, Any]] = deque(maxlen=20)
        self.errors: list[str] = []
        self._changed = threading.Condition()
        self._connection: http.client.HTTPConnection | None = None
        self._generation = 0

    def subscribe(self) -> None:
        """Subscribe as a new framework; the old one, if any, ends with its connection.

        Raises:
            AssertionError: the master refused.

        """
        self.close()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        body = json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO}})
        connection.request("POST", "/api/v1/scheduler", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, (response.status, response.read())
        with self._changed:
            self.offers.clear()
            self.framework_id, self.stream_id = "", response.headers["Mesos-Stream-Id"]
            self._connection = connection
            self._generation += 1
            self.is_closed = False
        reader = threading.Thread(target=self._read, args=(response, self._generation), daemon=True)
        reader.start()
        self.until(lambda: bool(self.framework_id), "SUBSCRIBED")

    def close(self) -> None:
        """End the connection; the framework has no failover time and ends with it."""
        if self._connection is not None and self._connection.sock is not None:
            with contextlib.suppress(OSError):  # the reader's file keeps a closed socket open
                self._connection.sock.shutdown(socket.SHUT_RDWR)
            self._connection.sock.close()
        self._connection = None

    def call(self, type_: str, **fields: Any) -> int:
        """Make a call; the status of the answer."""
        document = {"type": type_, "framework_id": {"value": self.framework_id}, **fields}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        headers = {"Content-Type": "application/json", "Mesos-Stream-Id": self.stream_id}
        try:
            connection.request("POST", "/api/v1/scheduler", json.dumps(document), headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def run_task(self, task_id: str, timeout_s: float = 60.0) -> None:
        """Launch a task on the first offer that has room for it, and wait until it has finished.

        Raises:
            AssertionError: no offer came, or the task did not finish, within the time.

        """
        self.until(lambda: bool(self._real_offers()), "an offer", timeout_s)
        offer = self._real_offers()[0]
        self.offers.pop(offer["id"]["value"], None)
        task = {
            "name": task_id,
            "task_id": {"value": task_id},
            "agent_id": offer["agent_id"],
            "resources": SMALL,
            "command": {"value": "true"},
        }
        launch = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
        status = self.call("ACCEPT", accept={"offer_ids": [offer["id"]], "operations": [launch]})
        assert status == 202, status
        self.until(lambda: self.tasks.get(task_id) == "TASK_FINISHED", task_id, timeout_s)

    def _real_offers(self) -> list[dict[str, Any]]:
        """Offers of the real agent: fuzzed registrations are agents, too."""
        return [item for item in self.offers.values() if item["hostname"] == self.agent_host]

    def until(self, holds: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Wait until a condition on the events holds."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while not holds():
                left_s = end - time.monotonic()
                assert left_s > 0, f"not within {timeout_s:g} s: {what}; tasks: {self.tasks}"
                self._changed.wait(min(left_s, 1.0))

    def _read(self, response: http.client.HTTPResponse, generation: int) -> None:
        try:
            while line := response.readline():
                event = json.loads(response.read(int(line)))
                with self._changed:
                    if generation != self._generation:
                        return
                    self._apply(event)
                    self._changed.notify_all()
                self._acknowledge(event)
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass  # the connection ended
        if generation == self._generation:
            self.is_closed = True

    def _apply(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "SUBSCRIBED":
                self.framework_id = event["subscribed"]["framework_id"]["value"]
            case "OFFERS":
                for offer in event["offers"]["offers"]:
                    self.offers[offer["id"]["value"]] = offer
            case "RESCIND":
                self.offers.pop(event["rescind"]["offer_id"]["value"], None)
            case "UPDATE":
                status = event["update"]["status"]
                self.tasks[status["task_id"]["value"]] = status["state"]
                if "uuid" in status:
                    self.uuids.append(status)
            case "ERROR":
                self.errors.append(event["error"]["message"])

    def _acknowledge(self, event: dict[str, Any]) -> None:
        status = event["update"]["status"] if event["type"] == "UPDATE" else {}
        if "uuid" in status and "agent_id" in status:
            body = {name: status[name] for name in ("agent_id", "task_id", "uuid")}
            self.call("ACKNOWLEDGE", acknowledge=body)
