"""The endpoint's own routes below `/_mesaform/`: health, faults, and EC2 for the hypervisor.

Every request carries the token of `credentials.json` (`Authorization: Bearer ...`), which only the
owner of the local cloud can read: no web page, no task and no other user can inject a fault.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import msgspec
import structlog
from aiohttp import web

from mesaform.common.errors import BadInput
from mesaform.common.record_files import write_record
from mesaform.http import UNHANDLED, read_body
from mesaform.localcloud import faults, machines
from mesaform.localcloud.aws_request import AwsRequest
from mesaform.localcloud.changes import ChangeSignal
from mesaform.localcloud.error_responses import Answer, as_json
from mesaform.localcloud.history import History
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import PREFIX, StateReport
from mesaform.localcloud.state_store import AccountStore, NotStoredError

log = structlog.get_logger(__name__)
MAX_WAIT_S = 30.0
"""The longest that a poll for changes of the machines waits."""
POLL_GRACE_S = 5.0
"""How much later than `MAX_WAIT_S` the hypervisor may poll again and still count as running."""
TICK_S = 0.25
MAX_BODY_BYTES = 256 * 1024
METADATA = "imds"
"""The metadata service's port, by the name that its errors are counted under."""
COUNT = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Request:
    """A call of an own route: the path after the route's name, the query, the body."""

    rest: str
    query: Mapping[str, str]
    body: bytes


class ImageReport(msgspec.Struct, frozen=True):
    """The hypervisor's report that an image is `available` or `failed`."""

    state: str


@dataclass(frozen=True, slots=True)
class Parts:
    """What the own routes work on."""

    layout: Layout
    account: AccountStore
    faults: faults.FaultRegistry
    ec2: machines.Ec2
    history: History
    changes: ChangeSignal


class Control:
    """Answers the local cloud's own routes and does what happens by itself in EC2.

    Except `answer` and `run_clock` its methods run in the thread that calls moto.
    """

    def __init__(self, parts: Parts, token: str, executor: Executor) -> None:
        self._layout = parts.layout
        self._account = parts.account
        self._faults = parts.faults
        self._ec2 = parts.ec2
        self._history = parts.history
        self._changes = parts.changes
        self._token = token
        self._executor = executor
        # A version of an earlier process must never equal one of this process.
        self._session = secrets.token_hex(4)
        self._sequence = 0
        self._polled_at = 0.0
        self._metadata_errors = 0
        self._routes: Mapping[tuple[str, str], Callable[[Request], Answer]] = {
            ("GET", "health"): self._health,
            ("GET", "faults"): self._list_faults,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("POST", "machines"): self._machine,
            ("POST", "images"): self._image,
        }

    async def answer(self, http: web.Request, head: AwsRequest) -> Answer:
        """The answer to a request below `/_mesaform/`."""
        given = head.header("Authorization").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return _json({"error": "the token of the local cloud is missing or wrong"}, 403)
        name, _, rest = head.path.removeprefix(PREFIX + "/").partition("/")
        body = await read_body(http, max_bytes=MAX_BODY_BYTES)
        request = Request(rest, dict(head.query), body)
        if (head.method, name) == ("GET", "machines"):
            return await self._machines(request)
        route = self._routes.get((head.method, name))
        if route is None:
            return _json({"error": f"no such route: {head.method} {head.path[:200]}"}, 404)
        return await self._run(_guarded, route, request)

    async def _run(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*arguments))

    def changed(self) -> None:
        """Wake the polls, because machines may have changed."""
        self._sequence += 1
        self._ec2.bus.copies = self._faults.copies(time.time())
        if self._ec2.bus.announce_changes(self._ec2.states()):
            try:
                self._account.save()
            except NotStoredError:
                self._ec2.bus.take_back()
        self._changes.notify()

    def tick(self, now: float) -> None:
        """Do what is due: interruptions, zone outages, removal of instances that ended long ago.

        Nothing is due while the account cannot be saved.
        """
        self._account.retry()
        if self._account.storage_error:
            return
        before = self._faults.dump()
        self._ec2.bus.copies = self._faults.copies(now)
        has_changed = False
        for announcement in self._faults.announced(now):
            has_changed |= self._ec2.announce(announcement)
        has_changed |= self._ec2.kill_zones(self._faults.zones_out(now))
        has_changed |= self._ec2.forget_ended(now)
        if has_changed:
            try:
                self._commit()
            except NotStoredError:
                self._faults.reset(before)

    async def run_clock(self) -> None:
        """Tick for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await asyncio.get_running_loop().run_in_executor(
                    self._executor, lambda: self.tick(time.time())
                )
            except Exception:  # one failed tick must not end the clock
                log.exception("clock.tick")

    def _commit(self) -> None:
        self._account.save("ec2")
        self._history.note()
        self.changed()

    def _health(self, _request: Request) -> Answer:
        account = self._account
        is_polling = time.time() - self._polled_at < MAX_WAIT_S + POLL_GRACE_S
        return _json(
            {
                "ok": not account.storage_error,
                "storage_error": account.storage_error,
                "hypervisor": is_polling,
                "not_saved": account.failures,
                "lost": account.lost,
                "last_save_ms": round(account.last_save_s * 1000, 2),
                "slowest_save_ms": round(account.slowest_save_s * 1000, 2),
                "unhandled_errors": {**UNHANDLED.by_port(), METADATA: self._metadata_errors},
            }
        )

    def _list_faults(self, _request: Request) -> Answer:
        return _json({"faults": self._faults.listing(time.time())})

    def _add_fault(self, request: Request) -> Answer:
        fault = faults.parse(request.body)
        if isinstance(fault, faults.SpotInterruption):
            self._ec2.require_spot(fault.instance_id)
        before = self._faults.dump()
        name = self._faults.add(fault, time.time())
        self._write_faults(before)
        if isinstance(fault, faults.Lag):
            self._history.begin()
        self.tick(time.time())
        return _json({"id": name}, 201)

    def _clear_faults(self, request: Request) -> Answer:
        before = self._faults.dump()
        count = self._faults.clear(request.rest or None)
        self._write_faults(before)
        if request.rest and not count:
            raise LookupError(f"no fault {request.rest[:100]}")
        return _json({"cleared": count})

    def _write_faults(self, before: bytes) -> None:
        """Store the faults in force.

        Raises:
            NotStoredError: they cannot be stored, and are again those `before`.

        """
        try:
            write_record(self._layout.faults, faults.REGISTRY, self._faults.state())
        except OSError as error:
            self._faults.reset(before)
            raise NotStoredError(error.strerror or str(error)) from error
        self.changed()

    @property
    def _version(self) -> str:
        return f"{self._session}-{self._sequence}"

    async def _machines(self, request: Request) -> Answer:
        """The world; with `after=<version>` it waits up to `wait_s` for another version."""
        wait_s = _wait_s(request.query.get("wait_s", "0"))
        if wait_s is None:
            return _json({"error": f"wait_s is not a number from 0 to {MAX_WAIT_S:g}"}, 400)
        after = request.query.get("after")
        until = time.monotonic() + wait_s
        self._note_poll(after)
        self._note_metadata_errors(request.query.get("unhandled_errors", ""))
        ticket = self._changes.ticket()
        while after == self._version and (remaining_s := until - time.monotonic()) > 0:
            await self._changes.wait(ticket, remaining_s)
            ticket = self._changes.ticket()
        self._note_poll(after)
        return await self._run(self._world)

    def _world(self) -> Answer:
        world = self._ec2.world(
            self._version,
            self._faults.boot_delay_s(time.time()),
            is_complete=self._account.is_complete("ec2"),
        )
        return as_json(msgspec.json.encode(world))

    def _note_poll(self, after: str | None) -> None:
        """Only the hypervisor asks with `after`."""
        if after is not None:
            self._polled_at = time.time()

    def _note_metadata_errors(self, count: str) -> None:
        """The metadata service is in the hypervisor's process, and has no metrics of its own."""
        if COUNT.fullmatch(count):
            self._metadata_errors = int(count)

    def _machine(self, request: Request) -> Answer:
        """`machines/<id>/state` takes a report, `machines/<id>/credentials` gives credentials."""
        instance_id, _, subject = request.rest.partition("/")
        if subject == "credentials":
            return self._credentials(instance_id)
        report = msgspec.json.decode(request.body, type=StateReport)
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
        credentials = self._ec2.credentials(instance_id)
        self._account.save()
        return as_json(msgspec.json.encode(credentials))

    def _image(self, request: Request) -> Answer:
        """`images/<id>`: the copy is complete (`available`) or failed."""
        report = msgspec.json.decode(request.body, type=ImageReport)
        if self._ec2.apply_image_report(request.rest, report.state):
            self._commit()
        return _json({})


def _guarded(route: Callable[[Request], Answer], request: Request) -> Answer:
    """The answer of a route, or the error that it raised."""
    try:
        return route(request)
    except (BadInput, msgspec.DecodeError, UnicodeDecodeError) as error:
        return _json({"error": str(error)}, 400)
    except LookupError as error:
        return _json({"error": str(error)}, 404)
    except NotStoredError as error:
        return _json({"error": f"the local account cannot be saved: {error}"}, 507)


def _wait_s(text: str) -> float | None:
    """A wait in seconds; None for a text that is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= MAX_WAIT_S else None


def _json(document: object, status: int = 200) -> Answer:
    return as_json(msgspec.json.encode(document), status)
