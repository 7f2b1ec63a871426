"""Real nodes for tests: `mesaform.node` as a process of its own, with services of the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mesaform.common import proc

T = TypeVar("T")
REPOSITORY = Path(__file__).parents[3]

DRIVER = """
import json, os, sys
from pathlib import Path
from mesaform.node.main import serve
from mesaform.node.model import Desired, Identity, Service
from mesaform.topology.user_data import NodeDocument
services = tuple(
    Service(s["name"], tuple(s["argv"]), ready=tuple(s["ready"]) if "ready" in s else None,
            stop_within_s=s.get("stop_within_s", 5.0), controls_node=s.get("controls_node", False))
    for s in json.loads(sys.argv[1])
)
document = NodeDocument(1, "test", "agent", "us-east-1", "embedded", (), "none")
identity = Identity("i-test", "m5.large", "us-east-1a", "127.71.0.9", "on-demand")
sys.exit(serve(document, identity, Desired(services), Path(sys.argv[2]), os.environ))
"""

# Writes its start and its orderly end to a journal that all services of a node share.
RECORDER = """
import os, signal, sys, threading
journal, name = sys.argv[1:3]
def note(event):
    with open(journal, "a") as file:
        file.write(f"{event} {name} {os.getpid()}\\n")
done = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: done.set())
note("start")
print("hello from", name, flush=True)
done.wait()
note("stop")
"""

IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""

# Starts a grandchild in a session of its own, as an engine's agent starts executors.
PARENT = """
import subprocess, sys
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleep, start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def until(what: str, condition: Callable[[], T | None], timeout_s: float = 60.0) -> T:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def is_alive(pid: int) -> bool:
    process = proc.read_process(pid)
    return process is not None and not process.has_ended


class Node:
    """A node with services of the test, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.process: subprocess.Popen[str] | None = None

    def recorder(self, name: str, **fields: Any) -> dict[str, Any]:
        return {
            "name": name,
            "argv": [sys.executable, "-c", RECORDER, str(self.journal), name],
            **fields,
        }

    def start(self, services: Sequence[dict[str, Any]], **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(list(services)), str(self.folder)],
            cwd=REPOSITORY,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def status(self) -> dict[str, dict[str, Any]]:
        try:
            node_status = json.loads((self.folder / "status.json").read_bytes())
        except FileNotFoundError:
            return {}
        return {service["service"]: service for service in node_status["services"]}

    def service_pid(self, name: str) -> int | None:
        entry = self.status().get(name, {})
        return entry.get("pid") if entry.get("state") == "running" else None

    def notes(self) -> list[tuple[str, str]]:
        if not self.journal.exists():
            return []
        return [
            (line.split()[0], line.split()[1]) for line in self.journal.read_text().splitlines()
        ]

    def log(self, name: str) -> str:
        path = self.folder / "log" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def finish(self, timeout_s: float = 60.0) -> tuple[int, str]:
        assert self.process is not None
        out, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out

    def cleanup(self) -> None:
        if self.process is not None and self.process.poll() is None:
            children = proc.children(self.pid)
            self.process.kill()
            self.process.communicate()
            for pid in children:
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
