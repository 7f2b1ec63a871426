"""The endpoint's process: moto behind the gateway, on a socket that the daemon opened and keeps.

The socket outlives this process, so clients that call while it restarts wait in the queue instead of being refused.
This is the only process that imports moto.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import structlog

from mesaform.localcloud.layout import Layout

log = structlog.get_logger(__name__)


def serve(layout: Layout, fd: int, host: str, port: int) -> None:
    """Answer on the listening socket `fd` until SIGTERM."""
    began = time.perf_counter()
    from mesaform.localcloud.moto_patches import catalogue

    catalogue.prepare()
    gateway, control = _compose(layout)
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):  # type: ignore[misc]
        disable_nagle_algorithm = (
            True  # a header and a body are two writes: without this every answer waits 40 ms
        )
        protocol_version = "HTTP/1.1"

        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            """The gateway logs what matters."""

    server = make_server(host, port, gateway, threaded=True, request_handler=Handler, fd=fd)
    server.daemon_threads = True
    stopped = threading.Event()
    threading.Thread(target=control.run_clock, args=(stopped,), daemon=True, name="clock").start()
    signal.signal(
        signal.SIGTERM, lambda *_: os._exit(0)
    )  # everything is on disk before it is answered
    log.info("endpoint.ready", pid=os.getpid(), seconds=round(time.perf_counter() - began, 2))
    server.serve_forever()


def _compose(layout: Layout) -> tuple[Any, Any]:
    from moto.backends import get_backend
    from moto.ec2.models import ec2_backends
    from moto.events.models import events_backends
    from moto.iam.models import iam_backends
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends  # noqa: F401  # loaded now rather than in the first call
    from moto.sqs.models import sqs_backends  # noqa: F401  # likewise
    from moto.sts.models import sts_backends

    from mesaform.localcloud import moto_patches
    from mesaform.localcloud.announcing import Bus
    from mesaform.localcloud.control import Control
    from mesaform.localcloud.gateway import Gateway
    from mesaform.localcloud.history import History
    from mesaform.localcloud.machines import Ec2
    from mesaform.localcloud.moto_patches import launch, network, requests
    from mesaform.localcloud.network_claims import NetworkClaims
    from mesaform.localcloud.state_store import Account

    moto_patches.apply(lambda image_id: layout.image(image_id).mkdir(parents=True, exist_ok=True))
    account = Account(layout.account)
    network.Claims.board = NetworkClaims(layout.root)
    restored = account.restore(get_backend)
    network.claim_again(ec2_backends)
    log.info("account.restored", services=restored)
    board = _load_board(layout.root / "faults.json")
    launch.Switch.board, launch.Switch.now = board, staticmethod(time.time)
    requests.Consoles.machines = layout.machines
    lock = threading.RLock()
    control = Control(
        layout,
        account,
        board,
        Ec2(ec2_backends, iam_backends, sts_backends, Bus(events_backends)),
        lock,
    )
    history = History(ec2_backends, account.encode, lambda: board.lag_s(time.time()))
    control.history = history
    app = DomainDispatcherApplication(create_backend_app)
    return Gateway(app, account, board, history, control, lock), control


def _load_board(path: Path) -> Any:
    from mesaform.localcloud.faults import FaultRegistry

    return FaultRegistry.load(path.read_bytes()) if path.exists() else FaultRegistry()
