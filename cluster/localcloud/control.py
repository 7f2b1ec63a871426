"""The endpoint's own routes below `/_mesaform/`: health, faults, and EC2 for the hypervisor."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs
from wsgiref.types import WSGIEnvironment

import msgspec
import structlog

from mesaform.common.errors import BadInput
from mesaform.common.files import write_atomically
from mesaform.localcloud import faults, machines
from mesaform.localcloud.error_responses import Answer, as_json
from mesaform.localcloud.history import History
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import PREFIX, StateReport
from mesaform.localcloud.state_store import AccountStore

log = structlog.get_logger(__name__)
MAX_WAIT_S = 30.0
"""The longest that a poll for changes of the machines waits."""
POLL_GRACE_S = 5.0
"""How much later than `MAX_WAIT_S` the hypervisor may poll again and still count as running."""
TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class Request:
    """A call of an own route: the path after the route's name, the query, the body."""

    rest: str
    query: Mapping[str, str]
    body: bytes


class Control:
    """Answers the local cloud's own routes and does what happens by itself in EC2."""

    def __init__(
        self,
        layout: Layout,
        account: AccountStore,
        registry: faults.FaultRegistry,
        ec2: machines.Ec2,
        history: History,
        lock: threading.RLock,
    ) -> None:
        self._layout = layout
        self._account = account
        self._faults = registry
        self._ec2 = ec2
        self._history = history
        self._lock = lock
        self._change = threading.Condition(lock)
        # A version of an earlier process must never equal one of this process.
        self._session = secrets.token_hex(4)
        self._sequence = 0
        self._polled_at = 0.0
        self._routes: Mapping[tuple[str, str], Callable[[Request], Answer]] = {
            ("GET", "health"): self._health,
            ("GET", "faults"): self._list_faults,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "machines"): self._machines,
            ("POST", "machines"): self._machine,
            ("POST", "images"): self._image,
        }

    def answer(self, environ: WSGIEnvironment, body: bytes) -> Answer:
        """The answer to a request below `/_mesaform/`."""
        method = str(environ["REQUEST_METHOD"])
        path = str(environ["PATH_INFO"]).removeprefix(PREFIX + "/")
        name, _, rest = path.partition("/")
        route = self._routes.get((method, name))
        if route is None:
            return _json({"error": f"no such route: {method} {PREFIX}/{path}"}, "404 Not Found")
        fields = parse_qs(str(environ.get("QUERY_STRING", "")))
        query = {field: values[0] for field, values in fields.items()}
        try:
            return route(Request(rest, query, body))
        except (BadInput, msgspec.DecodeError) as error:
            return _json({"error": str(error)}, "400 Bad Request")
        except LookupError as error:
            return _json({"error": str(error)}, "404 Not Found")

    def changed(self) -> None:
        """Wake the polls, because machines may have changed. The caller holds the lock."""
        self._sequence += 1
        self._ec2.bus.copies = self._faults.copies(time.time())
        if self._ec2.bus.announce_changes(self._ec2.states()):
            self._account.save()
        self._change.notify_all()

    def tick(self, now: float) -> None:
        """Do what is due: interruptions, zone outages, removal of instances that ended long ago."""
        with self._lock:
            has_changed = False
            self._ec2.bus.copies = self._faults.copies(now)
            for announcement in self._faults.announced(now):
                has_changed |= self._ec2.announce(announcement)
            has_changed |= self._ec2.kill_zones(self._faults.zones_out(now))
            has_changed |= self._ec2.forget_ended(now)
            if has_changed:
                self._commit()

    def run_clock(self, stopped: threading.Event) -> None:
        """Tick until `stopped` is set; runs in a thread of its own."""
        while not stopped.wait(TICK_S):
            try:
                self.tick(time.time())
            except Exception:  # one failed tick must not end the clock
                log.exception("clock.tick")

    def wait_for_change(self, max_s: float) -> None:
        """Release the lock until machines may have changed. The caller holds the lock once."""
        self._change.wait(max_s)

    def _commit(self) -> None:
        self._account.save("ec2")
        self._history.note()
        self.changed()

    def _health(self, _request: Request) -> Answer:
        with self._lock:
            account = self._account
            is_polling = time.time() - self._polled_at < MAX_WAIT_S + POLL_GRACE_S
            return _json(
                {
                    "ok": True,
                    "hypervisor": is_polling,
                    "not_saved": account.failures,
                    "set_aside": account.set_aside,
                    "last_save_ms": round(account.last_save_s * 1000, 2),
                    "slowest_save_ms": round(account.slowest_save_s * 1000, 2),
                }
            )

    def _list_faults(self, _request: Request) -> Answer:
        with self._lock:
            return _json({"faults": self._faults.listing(time.time())})

    def _add_fault(self, request: Request) -> Answer:
        fault = faults.parse(request.body)
        with self._lock:
            if isinstance(fault, faults.SpotInterruption):
                self._ec2.require_spot(fault.instance_id)
            if isinstance(fault, faults.Lag):
                self._history.begin()
            name = self._faults.add(fault, time.time())
            self._faults_changed()
        self.tick(time.time())
        return _json({"id": name}, "201 Created")

    def _clear_faults(self, request: Request) -> Answer:
        with self._lock:
            count = self._faults.clear(request.rest or None)
            self._faults_changed()
        if request.rest and not count:
            raise LookupError(f"no fault {request.rest}")
        return _json({"cleared": count})

    def _faults_changed(self) -> None:
        write_atomically(self._layout.faults, self._faults.dump())
        self.changed()

    @property
    def _version(self) -> str:
        return f"{self._session}-{self._sequence}"

    def _machines(self, request: Request) -> Answer:
        """The world; with `after=<version>` it waits up to `wait_s` for another version."""
        until = time.monotonic() + min(float(request.query.get("wait_s", 0)), MAX_WAIT_S)
        after = request.query.get("after")
        with self._lock:
            self._note_poll(after)
            while after == self._version and (remaining_s := until - time.monotonic()) > 0:
                self._change.wait(remaining_s)
            self._note_poll(after)
            world = self._ec2.world(self._version, self._faults.boot_delay_s(time.time()))
        return as_json(msgspec.json.encode(world))

    def _note_poll(self, after: str | None) -> None:
        """Only the hypervisor asks with `after`."""
        if after is not None:
            self._polled_at = time.time()

    def _machine(self, request: Request) -> Answer:
        """`machines/<id>/state` takes a report, `machines/<id>/credentials` gives credentials."""
        instance_id, _, subject = request.rest.partition("/")
        if subject == "credentials":
            return self._credentials(instance_id)
        report = msgspec.json.decode(request.body, type=StateReport)
        with self._lock:
            if self._ec2.apply_report(instance_id, report):
                self._commit()
                log.info(
                    "machine",
                    instance=instance_id,
                    state=report.state,
                    code=report.code,
                    message=report.message,
                )
        return _json({})

    def _credentials(self, instance_id: str) -> Answer:
        with self._lock:
            credentials = self._ec2.credentials(instance_id)
            self._account.save()
        return as_json(msgspec.json.encode(credentials))

    def _image(self, request: Request) -> Answer:
        """`images/<id>`: the copy is complete (`available`) or failed."""
        report = msgspec.json.decode(request.body, type=dict[str, str])
        with self._lock:
            if self._ec2.apply_image_report(request.rest, report["state"]):
                self._commit()
        return _json({})


def _json(document: object, status: str = "200 OK") -> Answer:
    return as_json(msgspec.json.encode(document), status)
