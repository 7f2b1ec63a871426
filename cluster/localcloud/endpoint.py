"""The endpoint's process: moto behind the gateway, on a socket that the daemon opened and keeps.

The socket outlives this process: clients that call while it restarts wait in the queue instead of
being refused. This is the only process that imports moto.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from mesaform.localcloud.layout import Layout

if TYPE_CHECKING:
    from mesaform.localcloud.control import Control
    from mesaform.localcloud.faults import FaultRegistry
    from mesaform.localcloud.gateway import Gateway
    from mesaform.localcloud.state_store import AccountStore

log = structlog.get_logger(__name__)


def serve(layout: Layout, fd: int, host: str, port: int) -> None:
    """Answer on the listening socket `fd` until SIGTERM."""
    began = time.perf_counter()
    from mesaform.localcloud.moto_patches import catalogue

    catalogue.prepare()
    gateway, control = _compose(layout)
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):  # type: ignore[misc] # werkzeug is not followed
        # A header and a body are two writes: with Nagle's algorithm each answer waits 40 ms.
        disable_nagle_algorithm = True
        protocol_version = "HTTP/1.1"

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Log nothing: the gateway logs the calls that change something."""

    server = make_server(host, port, gateway, threaded=True, request_handler=Handler, fd=fd)
    server.daemon_threads = True
    stopped = threading.Event()
    threading.Thread(target=control.run_clock, args=(stopped,), daemon=True, name="clock").start()
    # Every change is on disk before its answer, so there is nothing to finish.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    log.info("endpoint.ready", pid=os.getpid(), seconds=round(time.perf_counter() - began, 2))
    server.serve_forever()


def _compose(layout: Layout) -> tuple[Gateway, Control]:
    """Build the endpoint's objects and connect them."""
    from moto.ec2.models import ec2_backends
    from moto.events.models import events_backends
    from moto.iam.models import iam_backends
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.sts.models import sts_backends

    from mesaform.localcloud import moto_patches
    from mesaform.localcloud.announcing import Bus
    from mesaform.localcloud.control import Control
    from mesaform.localcloud.gateway import Gateway
    from mesaform.localcloud.history import History
    from mesaform.localcloud.machines import Ec2

    faults = _load_faults(layout.faults)
    moto_patches.apply(partial(_create_image_folder, layout))
    account = _restore_account(layout)
    _connect_patches(layout, faults)
    lock = threading.RLock()
    ec2 = Ec2(ec2_backends, iam_backends, sts_backends, Bus(events_backends))
    history = History(ec2_backends, account.codec, lambda: faults.lag_s(time.time()))
    control = Control(layout, account, faults, ec2, history, lock)
    app = DomainDispatcherApplication(create_backend_app)
    return Gateway(app, account, faults, history, control, lock), control


def _create_image_folder(layout: Layout, image_id: str) -> None:
    layout.image(image_id).mkdir(parents=True, exist_ok=True)


def _restore_account(layout: Layout) -> AccountStore:
    """Load the account, claim its networks, and load what the first calls would have to load."""
    from moto.backends import get_backend
    from moto.ec2.models import ec2_backends
    from moto.s3.models import s3_backends  # noqa: F401 - loads it
    from moto.sqs.models import sqs_backends  # noqa: F401 - loads it

    from mesaform.localcloud.moto_patches import network
    from mesaform.localcloud.moto_patches.used_services import UsedServices
    from mesaform.localcloud.network_claims import NetworkClaims
    from mesaform.localcloud.state_store import AccountStore

    used = UsedServices()
    used.watch()
    account = AccountStore(layout.account, used)
    network.Claims.own = NetworkClaims(layout.root)
    services = account.restore(get_backend)
    if network.claim_again(ec2_backends):
        account.save("ec2")
    log.info("account.restored", services=services)
    return account


def _connect_patches(layout: Layout, faults: FaultRegistry) -> None:
    """Give moto's patches what they ask at each call."""
    from mesaform.localcloud.moto_patches import launch, requests

    launch.CapacityCheck.faults = faults
    launch.CapacityCheck.now = time.time
    requests.Consoles.machines = layout.machines


def _load_faults(path: Path) -> FaultRegistry:
    from mesaform.localcloud.faults import FaultRegistry

    return FaultRegistry.load(path.read_bytes()) if path.exists() else FaultRegistry()
