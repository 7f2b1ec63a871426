"""Starting, stopping and asking the daemon: what `mesaform local` and `mesaform up` call. Light: imports neither moto nor aiohttp."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mesaform.common.errors import Busy, MesaformError, MissingPrerequisite
from mesaform.localcloud import boot, processes
from mesaform.localcloud.layout import DEFAULT_HOST, DEFAULT_PORT, Layout, write_atomically
from mesaform.localcloud.protocol import PREFIX, Machine, World

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
BACKLOG = 512
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that answers. `started` tells whether this call started it."""

    url: str
    pid: int
    started: bool = False


def start(root: Path, *, port: int | None = None, host: str = DEFAULT_HOST) -> Running:
    """Have a daemon run with its state in `root`; returns when it answers. Idempotent.

    Args:
        root: the state folder; made if missing.
        port: where to listen; None means where it listened last, at first 5566. 0 means any free one.
        host: the address to listen on; the default is this machine's alone.

    Raises:
        Busy: the port is taken, or this folder's daemon listens on another one.
        MesaformError: it did not come up; the message has its last words.

    """
    layout = Layout(root.resolve())
    layout.create()
    lock = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_lock(lock):
            return _join(layout, port, host)
        for stale in (
            layout.pid,
            layout.endpoint,
        ):  # its process is gone, or the file would be locked
            stale.unlink(missing_ok=True)
        with _listen(host, _last_port(layout) if port is None else port) as listening:
            chosen = int(listening.getsockname()[1])
            write_atomically(layout.port, f"{chosen}\n".encode())
            pid = _spawn(layout, listening, lock, host, chosen)
    finally:
        os.close(lock)
    try:
        return _wait_ready(layout, Running(f"http://{host}:{chosen}", pid, started=True))
    except (
        BaseException
    ):  # a Ctrl-C as well: what this call started and could not wait for must not stay behind
        stop(layout.root)
        raise


def _last_port(layout: Layout) -> int:
    """Machines that outlived a daemon know its address, so the next one has to be found there."""
    try:
        return int(layout.port.read_text())
    except (OSError, ValueError):
        return DEFAULT_PORT


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _join(layout: Layout, port: int | None, host: str) -> Running:
    """Somebody else's daemon: running, or on its way; if that one fails, it is our turn."""
    until = time.monotonic() + START_TIMEOUT_S
    while (found := find(layout.root)) is None:
        if not _locked(layout):
            return start(layout.root, port=port, host=host)
        if time.monotonic() > until:
            raise Busy(
                "another `mesaform local start` holds this folder and does not get ready",
                where=str(layout.root),
                fix="see its log folder",
            )
        time.sleep(POLL_S)
    if port and not found.url.endswith(f":{port}"):
        raise Busy(
            f"the local cloud of this folder already listens on {found.url}",
            where=str(layout.root),
            fix="stop it first: mesaform local stop",
        )
    return _wait_ready(layout, found)


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            raise Busy(
                f"port {port} cannot be used: {error.strerror}",
                where=f"{host}:{port}",
                fix="end what listens there, or choose another port: mesaform local start --port <port>",
            ) from None
        raise
    return listening


def _spawn(layout: Layout, listening: socket.socket, lock: int, host: str, port: int) -> int:
    command = [
        sys.executable,
        "-m",
        "mesaform.localcloud",
        "supervise",
        str(layout.root),
        str(listening.fileno()),
        str(lock),
        host,
        str(port),
    ]
    with (layout.log / "daemon.log").open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(listening.fileno(), lock),
            start_new_session=True,
            env=_clean_environment(),
            cwd="/",
        )
    child.returncode = 0  # it outlives this program: not ours to wait for
    return child.pid


def _clean_environment() -> dict[str, str]:
    """The daemon's environment: nothing of AWS's, so that no profile, endpoint or credential of the operator gets into it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "MESAFORM_", "MOTO_"))
    }
    package = str(Path(__file__).absolute().parents[2])
    kept["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [kept.get("PYTHONPATH")])])
    return kept


def _wait_ready(layout: Layout, running: Running) -> Running:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        health = ask(running.url, "health", timeout_s=2.0)
        if health and health["hypervisor"]:
            return running
        if (found := processes.stat(running.pid)) is None or found.state == "Z":
            break
        time.sleep(POLL_S)
    raise MesaformError(
        f"the local cloud did not come up:\n{_last_words(layout)}",
        where=str(layout.log),
        fix="read the logs there",
    )


def _last_words(layout: Layout) -> str:
    texts = [path.read_text(errors="replace")[-800:] for path in sorted(layout.log.glob("*.log"))]
    return "\n".join(texts) or "(no logs)"


def find(root: Path) -> Running | None:
    """The daemon of this folder if its process lives, whether or not it answers yet."""
    layout = Layout(root.resolve())
    if not _locked(layout) or not layout.endpoint.exists():
        return None
    try:
        document = msgspec.json.decode(layout.endpoint.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return None
    return Running(document["url"], int(document["pid"]))


def _locked(layout: Layout) -> bool:
    if not layout.lock.exists():
        return False
    lock = os.open(layout.lock, os.O_RDWR)
    try:
        return not _try_lock(lock)
    finally:
        os.close(lock)


def ask(
    url: str, path: str, *, method: str = "GET", body: Any = None, timeout_s: float = 10.0
) -> dict[str, Any] | None:
    """Call one of the daemon's own routes; None if nobody answers.

    Raises:
        MesaformError: the daemon says that the request is wrong.

    """
    data = None if body is None else msgspec.json.encode(body)
    request = urllib.request.Request(f"{url}{PREFIX}/{path}", data=data, method=method)  # noqa: S310  # our own address
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return msgspec.json.decode(answer.read(), type=dict[str, Any])
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise MesaformError(f"the local cloud refused: {text}", where=f"{PREFIX}/{path}") from None
    except (OSError, TimeoutError):
        return None


def stop(root: Path) -> bool:
    """End the daemon and every machine; whether anything ran. Also ends what a daemon that was killed left behind.

    Raises:
        Busy: something does not end; the message names it.

    """
    layout = Layout(root.resolve())
    running = find(layout.root)
    ran = running is not None
    if running is not None:
        processes.send(running.pid, signal.SIGTERM)
        until = time.monotonic() + STOP_TIMEOUT_S
        while _locked(layout) and time.monotonic() < until:
            time.sleep(POLL_S)
        if _locked(layout):
            processes.send(running.pid, signal.SIGKILL)
    ran |= _end_leftovers(layout)
    for path in (layout.pid, layout.endpoint):
        path.unlink(missing_ok=True)
    return ran


def _end_leftovers(layout: Layout) -> bool:
    """SIGKILL machines without a daemon; whether there were any."""
    ours = {path.name for path in layout.machines.iterdir()} if layout.machines.is_dir() else set()
    census, found = processes.Census(), False
    until = time.monotonic() + STOP_TIMEOUT_S
    while left := {pid for owner, pids in census.take().items() if owner in ours for pid in pids}:
        found = True
        for pid in left:
            processes.send(pid, signal.SIGKILL)
        if time.monotonic() > until:
            raise Busy(
                f"processes {sorted(left)} of local machines do not end", where=str(layout.machines)
            )
        time.sleep(POLL_S)
    for instance_id in ours:
        boot.drop_record(layout, instance_id)
    return found


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine for `mesaform local status`; `pid` is None while it has no process."""

    instance_id: str
    address: str
    state: str
    pid: int | None
    image_id: str
    instance_type: str
    zone: str
    region: str


def status(root: Path) -> dict[str, Any]:
    """What runs: `running`, `url`, `pid`, `not_saved` (services whose state a crash would lose), `instances`, `faults`."""
    layout = Layout(root.resolve())
    running = find(layout.root)
    health = ask(running.url, "health") if running else None
    machines = ask(running.url, "machines") if running and health else None
    if running is None or health is None or machines is None:  # it may end between two questions
        return {
            "running": False,
            "url": running.url if running else None,
            "pid": running.pid if running else None,
            "instances": [],
        }
    world = msgspec.convert(machines, World)
    listed = ask(running.url, "faults") or {"faults": []}
    return {
        "running": True,
        "url": running.url,
        "pid": running.pid,
        "hypervisor": health["hypervisor"],
        "not_saved": health["not_saved"],
        "instances": [
            msgspec.to_builtins(_instance(layout, machine)) for machine in world.machines
        ],
        "faults": listed["faults"],
    }


def _instance(layout: Layout, machine: Machine) -> Instance:
    record = boot.read_record(layout, machine.instance_id)
    pid = record.pid if record and processes.alive(record.pid, record.started) else None
    return Instance(
        machine.instance_id,
        machine.address,
        machine.state,
        pid,
        machine.image_id,
        machine.instance_type,
        machine.zone,
        machine.region,
    )


def require(root: Path) -> Running:
    """The running daemon of this folder.

    Raises:
        MissingPrerequisite: there is none.

    """
    found = find(root)
    if found is None:
        raise MissingPrerequisite(
            "the local cloud is not running", where=str(root), fix="start it: mesaform local start"
        )
    return found
