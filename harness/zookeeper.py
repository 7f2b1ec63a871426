"""A real ZooKeeper (Debian's package): one JVM a test session, or one for a test that stops it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from harness.ports import free_port

JARS = Path("/usr/share/java")
HEAP_MIB = 64
SESSION_AT_MOST_S = 600
"""The longest session that a client gets. It outlasts every test."""


def available() -> bool:
    """Whether Java and Debian's ZooKeeper are installed."""
    return shutil.which("java") is not None and (JARS / "zookeeper.jar").exists()


class ZooKeeperServer:
    """A standalone server on its own loopback address. `hosts` is such as "127.99.0.1:34567".

    `settings` are further lines of its configuration.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.99.0.1",
        tick_ms: int = 500,
        settings: tuple[str, ...] = (),
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._address = address
        self._tick_ms = tick_ms
        self._port = free_port(address)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def hosts(self) -> str:
        return f"{self._address}:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = 120.0) -> None:
        """Start the server, or start it again on the same data; returns when it answers `ruok`."""
        config = self._folder / "zoo.cfg"
        config.write_text(
            f"dataDir={self._folder / 'data'}\nclientPort={self._port}\n"
            f"clientPortAddress={self._address}\ntickTime={self._tick_ms}\n"
            f"minSessionTimeout={2 * self._tick_ms}\nmaxSessionTimeout={SESSION_AT_MOST_S * 1000}\n"
            "maxClientCnxns=0\nadmin.enableServer=false\n"
            "4lw.commands.whitelist=*\n" + "".join(f"{line}\n" for line in self._settings)
        )
        log = self._folder / "zookeeper.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    "java", f"-Xmx{HEAP_MIB}m", "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1", "-Xshare:auto",
                    "-Dzookeeper.log.threshold=WARN", "-cp",
                    f"{JARS / 'zookeeper.jar'}:{JARS / 'slf4j-nop.jar'}",
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config),
                ],
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"ZooKeeper did not start; its log:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self._address, self._port), timeout=1.0) as peer:
                peer.sendall(b"ruok")
                return peer.recv(4) == b"imok"
        except OSError:
            return False

    def pause(self) -> None:
        """Freeze the server: connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9; the data stays for a later `start`."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
