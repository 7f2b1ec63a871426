"""The local cloud's endpoint in a process of its own, with machines that only run.

`python -m tests.integration.provision.aws_server <folder> <address> <port>`. It is what
`mesaform up` reaches, with all corrections of moto, without a supervisor. In place of the
hypervisor a thread reports each instance's state as EC2 wants it, and starts nothing.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

import msgspec

from mesaform.localcloud import endpoint
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import ensure_credentials
from mesaform.localcloud.protocol import PREFIX, StateReport, World

BACKLOG = 128
WAIT_S = 25.0
REACHED = {"pending": "running", "stopping": "stopped", "shutting-down": "terminated"}
"""The state that an instance reaches in each state that is not to last."""


def report_states(url: str, token: str) -> None:
    """Report for ever that each instance has reached the state on the way to which it is."""

    def call(path: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {token}"}
        request = Request(f"{url}{PREFIX}/machines{path}", data=body, headers=headers)
        with urlopen(request, timeout=2 * WAIT_S) as answer:  # the endpoint of this process
            return answer.read()

    version = ""
    while True:
        wait_s = WAIT_S if version else 0.0
        world = msgspec.json.decode(call(f"?after={version}&wait_s={wait_s}"), type=World)
        version = world.version
        for machine in world.machines:
            if state := REACHED.get(machine.state):
                report = msgspec.json.encode(StateReport(state, machine.boots))
                call(f"/{machine.instance_id}/state", report)


def main(folder: str, address: str, port: str) -> None:
    """Serve until SIGTERM."""
    layout = Layout(Path(folder))
    layout.create()
    token = ensure_credentials(layout).control_token
    listening = socket.create_server((address, int(port)), backlog=BACKLOG)
    url = f"http://{address}:{port}"
    Thread(target=report_states, args=(url, token), daemon=True).start()
    endpoint.serve(layout, listening.detach())


if __name__ == "__main__":
    main(*sys.argv[1:])
