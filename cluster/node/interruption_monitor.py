"""Interruption monitor of every agent: `python -m mesaform.node.interruption_monitor`.

It reads notices about the end of this machine from IMDS and sends them to the leading autoscaler.
EventBridge is the other source of such notices; this one is faster by seconds (docs/adr/0019).
The program needs no permissions on AWS or in ZooKeeper: the autoscaler accepts a notice only from
the machine that it concerns. Standard library and msgspec only, and plain lines
instead of structlog: it sleeps nearly always and must use little memory.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection

import msgspec

from mesaform.common.tls import Trust, tls_files, trust_of
from mesaform.node import notices
from mesaform.node.imds import Metadata, MetadataUnavailable
from mesaform.topology.instance_identity import PROOF_VARIABLE, identity_header, read_proof
from mesaform.topology.user_data import NOTICES_PATH, MachineNotice

POLL_INTERVAL_S = 2.0
"""Between two reads of the metadata. AWS recommends 5 s; a spot notice comes 120 s in advance."""

METADATA_RETRY_S = 3.0
CALL_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The machine, the addresses (`host:port`) of the autoscalers, and the file of the proof.

    `trust` accepts the masters' certificates; None where the cluster has no TLS.
    """

    instance_id: str
    address: str
    autoscalers: tuple[str, ...]
    proof_file: str = ""
    trust: Trust | None = None


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read the environment that `mesaform.node.roles` writes."""
    return Settings(
        environment["MESAFORM_MACHINE"],
        environment["MESAFORM_ADDRESS"],
        tuple(environment["MESAFORM_AUTOSCALERS"].split(",")),
        environment.get(PROOF_VARIABLE, ""),
        trust_of(tls_files(environment)),
    )


class InterruptionMonitor:
    """Sends each notice until the leading autoscaler has stored it.

    Args:
        read: returns the present notices.
        send: sends one notice; true once the leader has stored it.
        log: writes a line.

    """

    def __init__(
        self,
        read: Callable[[], Iterable[MachineNotice]],
        send: Callable[[MachineNotice], bool],
        log: Callable[[str], None],
    ) -> None:
        self._read = read
        self._send = send
        self._log = log
        self._is_stored: dict[tuple[str, float], bool] = {}

    def poll(self) -> None:
        """Read the notices once; log new ones and send those that are not stored yet."""
        for notice in self._read():
            key = (notice.kind, notice.ends_at)
            if key not in self._is_stored:
                self._log(_describe(notice))
            if not self._is_stored.get(key):
                self._is_stored[key] = self._send(notice)
                if self._is_stored[key]:
                    self._log(f"{notice.what}: stored by the autoscaler")


def _describe(notice: MachineNotice) -> str:
    if not notice.ends_at:
        return notice.what
    return f"{notice.what}, at {time.strftime('%H:%M:%S', time.gmtime(notice.ends_at))} UTC"


def send_to_leader(settings: Settings, notice: MachineNotice) -> bool:
    """Send to each autoscaler until the leader answers; true if the leader has stored it."""
    body = msgspec.json.encode(notice)
    proof = identity_header(read_proof(settings.proof_file))
    for autoscaler in settings.autoscalers:
        try:
            connection = _connection(autoscaler, settings)
        except OSError:
            return False
        answer = _post(connection, body, proof)
        if answer is not None:
            return bool(answer.get("known"))
    return False


def _connection(autoscaler: str, settings: Settings) -> HTTPConnection:
    """A connection from the machine's own address, which must be that of the proof.

    Raises:
        OSError: the CA cannot be read.

    """
    host, _, port = autoscaler.rpartition(":")
    source = (settings.address, 0)
    if settings.trust is None:
        return HTTPConnection(host, int(port), timeout=CALL_TIMEOUT_S, source_address=source)
    return HTTPSConnection(
        host,
        int(port),
        timeout=CALL_TIMEOUT_S,
        source_address=source,
        context=settings.trust.context(),
    )


def _post(
    connection: HTTPConnection, body: bytes, proof: Mapping[str, str]
) -> dict[str, bool] | None:
    """The leader's answer; None from a standby or without an answer."""
    try:
        connection.request(
            "POST", NOTICES_PATH, body=body, headers={"Content-Type": "application/json", **proof}
        )
        response = connection.getresponse()
        text = response.read()
        return msgspec.json.decode(text, type=dict[str, bool]) if response.status == 200 else None
    except (OSError, HTTPException, msgspec.DecodeError):
        return None
    finally:
        connection.close()


def main(argv: Sequence[str] = ()) -> int:
    """Poll until SIGTERM."""
    del argv
    settings, metadata = settings_from(os.environ), Metadata.from_environment()
    metadata.retry_for_s = METADATA_RETRY_S
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def log(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    monitor = InterruptionMonitor(
        lambda: notices.read(settings.instance_id, metadata.get, time.time()),
        lambda notice: send_to_leader(settings, notice),
        log,
    )
    while True:
        try:
            monitor.poll()
        except MetadataUnavailable as error:
            log(str(error))
        time.sleep(POLL_INTERVAL_S)


if __name__ == "__main__":
    sys.exit(main())
