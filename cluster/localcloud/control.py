"""The endpoint's own routes below `/_mesaform/`: health, the fault switch, and the hypervisor's side door to EC2."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec
import structlog

from mesaform.common.errors import BadInput
from mesaform.localcloud import faults, machines
from mesaform.localcloud.error_responses import Answer, as_json
from mesaform.localcloud.history import History
from mesaform.localcloud.layout import Layout, write_atomically
from mesaform.localcloud.protocol import PREFIX, StateReport
from mesaform.localcloud.state_store import Account

log = structlog.get_logger(__name__)
LONGEST_WAIT_S = 30.0
TICK_S = 0.25


class Control:
    """Answers the local cloud's own routes. `changed` wakes whoever waits for news of the machines."""

    def __init__(
        self,
        layout: Layout,
        account: Account,
        board: faults.FaultRegistry,
        ec2: machines.Ec2,
        lock: threading.RLock,
    ) -> None:
        self._layout = layout
        self._account = account
        self._board = board
        self._ec2 = ec2
        self._lock = lock
        self._news = threading.Condition(lock)
        self._session = secrets.token_hex(
            4
        )  # so that a version of an earlier process is never taken for this one's
        self._sequence = 0
        self._polled_at = 0.0
        self.history: History | None = None
        self._routes: tuple[
            tuple[str, str, Callable[[str, dict[str, str], bytes], Answer]], ...
        ] = (
            ("GET", "health", self._health),
            ("GET", "faults", self._list_faults),
            ("POST", "faults", self._add_fault),
            ("DELETE", "faults", self._clear_faults),
            ("GET", "machines", self._machines),
            ("POST", "machines", self._machine),
            ("POST", "images", self._image),
        )

    def answer(self, environ: dict[str, Any], body: bytes) -> Answer:
        method, path = (
            str(environ["REQUEST_METHOD"]),
            str(environ["PATH_INFO"]).removeprefix(PREFIX + "/"),
        )
        head, _, rest = path.partition("/")
        query = {
            key: values[0] for key, values in parse_qs(str(environ.get("QUERY_STRING", ""))).items()
        }
        for verb, name, route in self._routes:
            if (verb, name) == (method, head):
                try:
                    return route(rest, query, body)
                except (BadInput, msgspec.DecodeError) as error:
                    return _json({"error": str(error)}, "400 Bad Request")
                except LookupError as error:
                    return _json({"error": str(error)}, "404 Not Found")
        return _json({"error": f"no such route: {method} {PREFIX}/{path}"}, "404 Not Found")

    def changed(self) -> None:
        """Something about the machines may have changed. The caller holds the lock."""
        self._sequence += 1
        self._ec2.bus.copies = self._board.copies(time.time())
        if self._ec2.bus.look(self._ec2.states()):
            self._account.save(only="sqs")
        self._news.notify_all()

    def tick(self, now: float) -> None:
        """What happens by itself: interruptions come due, zones stay out, old instances leave the list."""
        with self._lock:
            touched = False
            self._ec2.bus.copies = self._board.copies(now)
            for fault, name, at, due in self._board.announced(now):
                touched |= self._ec2.announce(fault, name, at, due=due)
            touched |= self._ec2.kill_zones(self._board.zones_out(now))
            touched |= self._ec2.forget_ended(now)
            if touched:
                self._commit()

    def run_clock(self, stopped: threading.Event) -> None:
        """Tick until `stopped`; runs in a thread of its own."""
        while not stopped.wait(TICK_S):
            try:
                self.tick(time.time())
            except Exception:  # the clock must go on whatever one tick met
                log.exception("clock.tick")

    def wait_for_news(self, longest_s: float) -> None:
        """Let others go on until something about the machines may have changed. The caller holds the lock, once."""
        self._news.wait(longest_s)

    def _commit(self) -> None:
        self._account.save()
        if self.history is not None:
            self.history.note()
        self.changed()

    def _health(self, _rest: str, _query: dict[str, str], _body: bytes) -> Answer:
        with self._lock:
            return _json(
                {
                    "ok": True,
                    "hypervisor": time.time() - self._polled_at < LONGEST_WAIT_S + 5,
                    "not_saved": self._account.failures,
                    "last_save_ms": round(self._account.last_save_s * 1000, 2),
                    "slowest_save_ms": round(self._account.slowest_save_s * 1000, 2),
                }
            )

    def _list_faults(self, _rest: str, _query: dict[str, str], _body: bytes) -> Answer:
        with self._lock:
            return _json({"faults": self._board.listing(time.time())})

    def _add_fault(self, _rest: str, _query: dict[str, str], body: bytes) -> Answer:
        fault = faults.parse(body)
        with self._lock:
            if isinstance(fault, faults.SpotInterruption):
                self._ec2.require_spot(fault.instance_id)
            if isinstance(fault, faults.Lag) and self.history is not None:
                self.history.begin()
            name = self._board.add(fault, time.time())
            self._board_changed()
        self.tick(time.time())
        return _json({"id": name}, "201 Created")

    def _clear_faults(self, rest: str, _query: dict[str, str], _body: bytes) -> Answer:
        with self._lock:
            gone = self._board.clear(rest or None)
            self._board_changed()
        if rest and not gone:
            raise LookupError(f"no fault {rest}")
        return _json({"cleared": gone})

    def _board_changed(self) -> None:
        write_atomically(self._layout.root / "faults.json", self._board.dump())
        self.changed()

    @property
    def _version(self) -> str:
        return f"{self._session}-{self._sequence}"

    def _machines(self, _rest: str, query: dict[str, str], _body: bytes) -> Answer:
        """The world; with `after=<version>` not before it differs from that version or `wait_s` have passed."""
        until = time.monotonic() + min(float(query.get("wait_s", 0)), LONGEST_WAIT_S)
        with self._lock:
            if "after" in query:
                self._polled_at = time.time()
            while query.get("after") == self._version and (left := until - time.monotonic()) > 0:
                self._news.wait(left)
            if "after" in query:
                self._polled_at = time.time()
            world = self._ec2.world(self._version, self._board.boot_delay_s(time.time()))
        return as_json(msgspec.json.encode(world))

    def _machine(self, rest: str, _query: dict[str, str], body: bytes) -> Answer:
        """`machines/<id>/state` takes a report, `machines/<id>/credentials` gives the role's credentials."""
        instance_id, _, what = rest.partition("/")
        with self._lock:
            if what == "credentials":
                credentials = self._ec2.credentials(instance_id)
                self._account.save()
                return as_json(msgspec.json.encode(credentials))
            report = msgspec.json.decode(body, type=StateReport)
            if self._ec2.settle(instance_id, report):
                self._commit()
                log.info(
                    "machine",
                    instance=instance_id,
                    state=report.state,
                    code=report.code,
                    message=report.message,
                )
        return _json({})

    def _image(self, rest: str, _query: dict[str, str], body: bytes) -> Answer:
        """`images/<id>`: the copy is made (`available`) or failed."""
        report = msgspec.json.decode(body, type=dict[str, str])
        with self._lock:
            if self._ec2.settle_image(rest, report["state"]):
                self._commit()
        return _json({})


def _json(document: Any, status: str = "200 OK") -> Answer:
    return as_json(msgspec.json.encode(document), status)
