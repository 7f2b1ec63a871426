"""The endpoint's process: moto behind the gateway, on a socket that the daemon opened and keeps.

The socket outlives this process: clients that call while it restarts wait in the queue instead of
being refused. This is the only process that imports moto.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import structlog

from mesaform.common.record_files import read_record
from mesaform.common.set_aside import SetAsideLog
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import OperatorCredentials, read_credentials

if TYPE_CHECKING:
    from mesaform.localcloud.aws_api import Parts as ApiParts
    from mesaform.localcloud.control import Control
    from mesaform.localcloud.control import Parts as ControlParts
    from mesaform.localcloud.faults import FaultRegistry
    from mesaform.localcloud.gateway import Gateway
    from mesaform.localcloud.state_store import AccountStore

log = structlog.get_logger(__name__)
FAULTS_KIND = "local-faults"


def serve(layout: Layout, fd: int) -> None:
    """Answer on the listening socket `fd` until SIGTERM."""
    # What is loaded until the first answer stays: no collection of garbage need look at it.
    gc.disable()
    from mesaform.localcloud.moto_patches import catalogue

    catalogue.prepare()
    asyncio.run(_serve(layout, fd))


async def _serve(layout: Layout, fd: int) -> None:
    began = time.perf_counter()
    from mesaform.http import HttpServer
    from mesaform.localcloud.gateway import PORT

    loop = asyncio.get_running_loop()
    # Every change is on disk before its answer, so there is nothing to finish.
    loop.add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aws")
    gateway, control = _compose(layout, read_credentials(layout), executor)
    server = HttpServer(gateway.application(), PORT)
    gc.freeze()
    gc.enable()
    await server.listen_on(socket.socket(fileno=fd))
    log.info("endpoint.ready", pid=os.getpid(), seconds=round(time.perf_counter() - began, 2))
    await control.run_clock()


def _compose(
    layout: Layout, credentials: OperatorCredentials, executor: Executor
) -> tuple[Gateway, Control]:
    """Build the endpoint's objects and connect them."""
    from moto.ec2.models import ec2_backends
    from moto.events.models import events_backends
    from moto.iam.models import iam_backends
    from moto.sts.models import sts_backends

    from mesaform.localcloud import moto_patches
    from mesaform.localcloud.announcing import Bus
    from mesaform.localcloud.aws_api import AwsApi
    from mesaform.localcloud.changes import ChangeSignal
    from mesaform.localcloud.control import Control, Parts
    from mesaform.localcloud.gateway import Gateway
    from mesaform.localcloud.history import History
    from mesaform.localcloud.machines import Ec2

    faults = _load_faults(layout)
    moto_patches.apply(partial(_create_image_folder, layout))
    account = _restore_account(layout)
    _connect_patches(layout, faults)
    changes = ChangeSignal()
    ec2 = Ec2(ec2_backends, iam_backends, sts_backends, Bus(events_backends))
    history = History(ec2_backends, account.codec, lambda: faults.lag_s(time.time()))
    parts = Parts(layout, account, faults, ec2, history, changes)
    control = Control(parts, credentials.control_token, executor)
    api = AwsApi(_api_parts(parts, credentials, control.changed))
    return Gateway(api, control, changes, executor), control


def _api_parts(
    own: ControlParts, credentials: OperatorCredentials, changed: Callable[[], None]
) -> ApiParts:
    from moto.iam.models import iam_backends
    from moto.sts.models import sts_backends

    from mesaform.http import UNHANDLED
    from mesaform.localcloud.access_keys import AccessKeys
    from mesaform.localcloud.aws_api import Parts
    from mesaform.localcloud.gateway import PORT
    from mesaform.localcloud.moto_app import MotoApp

    operator = (credentials.access_key_id, credentials.secret_access_key)
    return Parts(
        moto=MotoApp(),
        account=own.account,
        faults=own.faults,
        history=own.history,
        keys=AccessKeys(operator, iam_backends, sts_backends),
        changed=changed,
        count_error=partial(UNHANDLED.add, PORT.name),
    )


def _create_image_folder(layout: Layout, image_id: str) -> None:
    layout.image(image_id).mkdir(parents=True, exist_ok=True)


def _restore_account(layout: Layout) -> AccountStore:
    """Load the account, claim its networks, and load what the first calls would have to load."""
    from moto.backends import get_backend
    from moto.ec2.models import ec2_backends
    from moto.s3.models import s3_backends  # noqa: F401 - loads it
    from moto.sqs.models import sqs_backends  # noqa: F401 - loads it

    from mesaform.localcloud import machine_kind
    from mesaform.localcloud.moto_patches import network
    from mesaform.localcloud.moto_patches.used_services import UsedServices
    from mesaform.localcloud.network_claims import EVERYWHERE, LOOPBACK, NetworkClaims
    from mesaform.localcloud.state_store import AccountStore, NotStoredError

    def match_networks(service: str) -> None:
        if service == "ec2":
            network.match_claims(ec2_backends)

    used = UsedServices()
    used.watch()
    account = AccountStore(layout.account, used, match_networks)
    has_containers = machine_kind.read(layout) == "containers"
    network.Claims.own = NetworkClaims(layout.root, EVERYWHERE if has_containers else LOOPBACK)
    services = account.restore(get_backend)
    if network.claim_again(ec2_backends):
        try:
            account.save("ec2")
        except NotStoredError as error:
            log.warning("account.not_stored", reason=str(error))
    log.info("account.restored", services=services)
    return account


def _connect_patches(layout: Layout, faults: FaultRegistry) -> None:
    """Give moto's patches what they ask at each call."""
    from mesaform.localcloud.moto_patches import account, launch, requests

    account.AccountSettings.faults = faults
    account.AccountSettings.now = time.time
    launch.CapacityCheck.faults = faults
    launch.CapacityCheck.now = time.time
    requests.Consoles.machines = layout.machines


def _load_faults(layout: Layout) -> FaultRegistry:
    """The faults in force; none if their record was set aside."""
    from mesaform.common.records import Unreadable
    from mesaform.localcloud.faults import REGISTRY, FaultRegistry

    state = read_record(layout.faults, REGISTRY, FAULTS_KIND, SetAsideLog())
    if state is None or isinstance(state, Unreadable):
        return FaultRegistry()
    return FaultRegistry.of(state)
