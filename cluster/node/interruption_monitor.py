"""The watch on every agent: it looks for the machine's own end in IMDS and tells the leading autoscaler. `python -m mesaform.node.interruption_monitor`.

The second way beside EventBridge, and the one that knows the time to the second. Standard library and msgspec only: it sleeps nearly
always, and must not cost memory. It needs no rights on AWS and none in ZooKeeper: it speaks to the masters' 9550 and is believed about
itself only (docs/adr/0019).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

import msgspec

from mesaform.node import notices
from mesaform.node.imds import Metadata, MetadataUnavailable
from mesaform.topology.user_data import NOTICES_PATH, MachineNotice

EVERY_S = 2.0
"""How often the metadata is asked: AWS advises 5 s, and of two minutes every second counts."""

PATIENCE_S = 3.0
CALL_S = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Who the machine is, and where autoscalers listen (`host:port`)."""

    instance_id: str
    address: str
    autoscalers: tuple[str, ...]


def settings_from(environment: Mapping[str, str]) -> Settings:
    """From the environment that `roles` writes."""
    return Settings(
        environment["MESAFORM_MACHINE"],
        environment["MESAFORM_ADDRESS"],
        tuple(environment["MESAFORM_AUTOSCALERS"].split(",")),
    )


class InterruptionMonitor:
    """Looks and tells.

    Args:
        read: what stands now.
        tell: tell one; whether the leader remembers it.
        say: a line for the log.

    """

    def __init__(
        self,
        read: Callable[[], Iterable[MachineNotice]],
        tell: Callable[[MachineNotice], bool],
        say: Callable[[str], None],
    ) -> None:
        self._read = read
        self._tell = tell
        self._say = say
        self._known: dict[tuple[str, float], bool] = {}

    def look(self) -> None:
        """Once: what is new is said and told, what is not remembered yet is told again."""
        for notice in self._read():
            key = (notice.kind, notice.ends_at)
            if key not in self._known:
                self._say(
                    f"{notice.what}"
                    + (
                        f", at {time.strftime('%H:%M:%S', time.gmtime(notice.ends_at))} UTC"
                        if notice.ends_at
                        else ""
                    )
                )
            if not self._known.get(key):
                self._known[key] = self._tell(notice)
                if self._known[key]:
                    self._say(f"{notice.what}: the autoscaler knows")


def tell_leader(settings: Settings, notice: MachineNotice) -> bool:
    """Tell every autoscaler until one says that it leads; whether that one remembers it already."""
    body = msgspec.json.encode(notice)
    for place in settings.autoscalers:
        answer = _post(place, settings.address, body)
        if answer is not None:
            return bool(answer.get("known"))
    return False


def _post(place: str, own_address: str, body: bytes) -> dict[str, bool] | None:
    """The answer of a leader; None from anybody else. It goes out from the machine's own address, by which it is believed."""
    host, _, port = place.rpartition(":")
    connection = HTTPConnection(host, int(port), timeout=CALL_S, source_address=(own_address, 0))
    try:
        connection.request(
            "POST", NOTICES_PATH, body=body, headers={"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        text = answer.read()
        return msgspec.json.decode(text, type=dict[str, bool]) if answer.status == 200 else None
    except (OSError, HTTPException, msgspec.DecodeError):
        return None
    finally:
        connection.close()


def main(argv: Sequence[str] = ()) -> int:
    """Watch until SIGTERM."""
    del argv
    settings, metadata = settings_from(os.environ), Metadata.from_environment()
    metadata.patience_s = PATIENCE_S
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def log(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    watch = InterruptionMonitor(
        lambda: notices.read(settings.instance_id, metadata.get, time.time()),
        lambda notice: tell_leader(settings, notice),
        log,
    )
    while True:
        try:
            watch.look()
        except MetadataUnavailable as error:
            log(str(error))
        time.sleep(EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
