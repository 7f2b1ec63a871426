"""Starts, stops and asks the daemon, for `mesaform local`, `up` and `down`.

Imports neither moto nor aiohttp, so that a command that only asks is fast.
"""

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
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TypedDict

import msgspec

from mesaform.common import proc
from mesaform.common.errors import Busy, MesaformError, MissingPrerequisite
from mesaform.common.files import SHARED_FILE_MODE, open_log, write_atomically
from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.common.record_files import files_set_aside
from mesaform.common.set_aside import SetAside
from mesaform.localcloud import boot, machine_kind, processes
from mesaform.localcloud.endpoint_file import read_endpoint
from mesaform.localcloud.layout import DEFAULT_HOST, DEFAULT_PORTS, Layout
from mesaform.localcloud.machine_runner import MachineKind
from mesaform.localcloud.operator_credentials import ensure_credentials, read_credentials
from mesaform.localcloud.protocol import PREFIX, Machine, World

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
HEALTH_TIMEOUT_S = 2.0
BACKLOG = 512
"""Connections that wait while the endpoint restarts."""
POLL_S = 0.05
PORT_RELEASE_S = 10.0
LOG_TAIL_CHARS = 800
"""How much of the end of each log an error shows."""


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that answers. `started` is true if this call started it."""

    url: str
    pid: int
    started: bool = False


def start(
    root: Path,
    *,
    port: int | None = None,
    host: str = DEFAULT_HOST,
    kind: MachineKind | None = None,
) -> Running:
    """Run a daemon with its state in `root`; returns when it answers. Idempotent.

    `kind` is what its machines are; without it, what they were.

    Without a port it listens where it listened last, else on the first free port of
    `DEFAULT_PORTS`. Port 0 means any free port.

    Raises:
        Busy: the given port is taken; this folder's daemon listens on another port; or machines
            still run that know only a port which is taken.
        MesaformError: the account is pickled or cannot be read, or the daemon does not answer.

    """
    layout = Layout(root.resolve())
    if kind is not None:
        machine_kind.choose(layout, kind, is_running=find(layout.root) is not None)
    try:
        started = _start(layout, port, host)
    except OSError as error:
        raise MesaformError(
            f"the local cloud cannot write its files: {error.strerror or error}",
            where=str(layout.root),
            fix="free some space, or make the folder writable",
        ) from error
    if started is None:
        return _join(layout, port, host)
    try:
        running = _wait_ready(layout, started)
    except BaseException:  # Ctrl-C too: a daemon that nobody waits for must not stay
        stop(layout.root)
        raise
    _require_account(running, layout)
    return running


def _start(layout: Layout, port: int | None, host: str) -> Running | None:
    """Start the daemon's process; None if one holds the folder already."""
    layout.create()
    lock = os.open(layout.lock, os.O_RDWR | os.O_CREAT, SHARED_FILE_MODE)
    try:
        if not _try_lock(lock):
            return None
        _require_records(layout)
        ensure_credentials(layout)
        # The lock is free, so the process that wrote these files is gone.
        for stale in (layout.pid, layout.endpoint):
            stale.unlink(missing_ok=True)
        with _listen(layout, host, port) as listening:
            chosen = int(listening.getsockname()[1])
            write_atomically(layout.port, f"{chosen}\n".encode(), mode=SHARED_FILE_MODE)
            pid = _spawn(layout, listening, lock, host)
        return Running(f"http://{host}:{chosen}", pid, started=True)
    finally:
        os.close(lock)


def _require_records(layout: Layout) -> None:
    if layout.account_file.exists() or not (files := layout.pickled_accounts()):
        return
    raise MesaformError(
        f"the local account was saved by an older version of mesaform ({files[0].name}), "
        "which this version does not read",
        where=str(layout.account),
        fix="take the clusters down with that version (mesaform down), or give the account up: "
        f"rm -r {layout.root}",
    )


def _require_account(running: Running, layout: Layout) -> None:
    """Fail once when the machines' record could not be read; the daemon goes on without it."""
    health = ask(layout.root, "health") or {}
    lost = [str(name) for name in as_list(health.get("lost"))]
    if not {"account", "ec2"} & set(lost):
        return
    kept = "; ".join(item.detail for item in records_set_aside(layout))
    raise MesaformError(
        f"the local account cannot be read and was set aside ({', '.join(lost)}): {kept}. "
        "The local cloud runs now without it; processes and folders of machines stay",
        where=running.url,
        fix="to use the record again, stop (mesaform local stop), rename the file to what it was "
        "(without .set-aside) and start the version that wrote it; to give it up, delete the file; "
        "to go on without it, run the same command again",
    )


def records_set_aside(layout: Layout) -> list[SetAside]:
    """The records of this local cloud that were set aside, and that nobody removed or put back."""
    folders = ((layout.account, "local-account"), (layout.root, "local"))
    return [item for folder, kind in folders for item in files_set_aside(folder, kind)]


def _last_port(layout: Layout) -> int | None:
    try:
        return int(layout.port.read_text())
    except (OSError, ValueError):
        return None


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _join(layout: Layout, port: int | None, host: str) -> Running:
    """Wait for the daemon that another command started; start one if that one fails."""
    until = time.monotonic() + START_TIMEOUT_S
    while (running := find(layout.root)) is None:
        if not _is_locked(layout):
            return start(layout.root, port=port, host=host)
        if time.monotonic() > until:
            raise Busy(
                "another `mesaform local start` holds this folder and does not get ready",
                where=str(layout.root),
                fix="see its log folder",
            )
        time.sleep(POLL_S)
    if port and not running.url.endswith(f":{port}"):
        raise Busy(
            f"the local cloud of this folder already listens on {running.url}",
            where=str(layout.root),
            fix="stop it first: mesaform local stop",
        )
    return _wait_ready(layout, running)


def _listen(layout: Layout, host: str, port: int | None) -> socket.socket:
    """A listening socket on the given port, the last one, or a free one.

    Machines that outlived a killed daemon know only its address, so while there are any, no other
    port will do.
    """
    last = _last_port(layout)
    if port is not None:
        return _bind_patiently(host, port) if port == last else _bind(host, port)
    if last is not None and _has_running_machines(layout):
        return _bind_patiently(host, last)
    for candidate in (*filter(None, [last]), *DEFAULT_PORTS):
        try:
            return _bind(host, candidate)
        except Busy:
            continue
    return _bind(host, 0)


def _bind_patiently(host: str, port: int) -> socket.socket:
    """Wait for the port: threads of a killed endpoint may have it for a moment after its end."""
    until = time.monotonic() + PORT_RELEASE_S
    while True:
        try:
            return _bind(host, port)
        except Busy:
            if time.monotonic() > until:
                raise
        time.sleep(POLL_S)


def _has_running_machines(layout: Layout) -> bool:
    return any(_pid_of(layout, path.name) is not None for path in layout.machines.iterdir())


def _pid_of(layout: Layout, instance_id: str) -> int | None:
    """The pid of a machine's first process, if it runs."""
    record = boot.read_record(layout, instance_id)
    return record.pid if record and proc.is_alive(record.pid, record.started) else None


def _bind(host: str, port: int) -> socket.socket:
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
                fix="end what listens there, or choose another port: "
                "mesaform local start --port <port>",
            ) from None
        raise
    return listening


def _spawn(layout: Layout, listening: socket.socket, lock: int, host: str) -> int:
    """Start the daemon's process in a session of its own; its pid."""
    fd, port = listening.fileno(), listening.getsockname()[1]
    arguments = [str(layout.root), str(fd), str(lock), host, str(port)]
    with open_log(layout.log / "daemon.log") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "mesaform.localcloud", "supervise", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(fd, lock),
            start_new_session=True,
            env=_clean_environment(),
            cwd="/",
        )
    child.returncode = 0  # it outlives this program, which therefore does not wait for it
    return child.pid


def _clean_environment() -> dict[str, str]:
    """The daemon's environment, without the operator's AWS profile, endpoint and credentials."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "MESAFORM_", "MOTO_"))
    }
    package = str(Path(__file__).absolute().parents[2])
    inherited = filter(None, [environment.get("PYTHONPATH")])
    environment["PYTHONPATH"] = os.pathsep.join([package, *inherited])
    return environment


def _wait_ready(layout: Layout, running: Running) -> Running:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        health = ask(layout.root, "health", timeout_s=HEALTH_TIMEOUT_S)
        if health and health["hypervisor"]:
            return running
        process = proc.read_process(running.pid)
        if process is None or process.has_ended:
            break
        time.sleep(POLL_S)
    raise MesaformError(
        f"the local cloud did not start:\n{_log_tails(layout)}",
        where=str(layout.log),
        fix="read the logs there",
    )


def _log_tails(layout: Layout) -> str:
    logs = sorted(layout.log.glob("*.log"))
    texts = [path.read_text(errors="replace")[-LOG_TAIL_CHARS:] for path in logs]
    return "\n".join(texts) or "(no logs)"


def find(root: Path) -> Running | None:
    """The daemon of this folder if its process lives, whether or not it answers yet."""
    layout = Layout(root.resolve())
    if not _is_locked(layout):
        return None
    endpoint = read_endpoint(layout)
    return Running(endpoint.url, endpoint.pid) if endpoint else None


def _is_locked(layout: Layout) -> bool:
    if not layout.lock.exists():
        return False
    lock = os.open(layout.lock, os.O_RDWR)
    try:
        return not _try_lock(lock)
    finally:
        os.close(lock)


def ask(
    root: Path, path: str, *, method: str = "GET", body: object = None, timeout_s: float = 10.0
) -> JsonObject | None:
    """Call one of the own routes of the daemon of this folder; None if nothing answers.

    Raises:
        MesaformError: the daemon refuses the request.

    """
    layout = Layout(root.resolve())
    if (running := find(layout.root)) is None:
        return None
    data = None if body is None else msgspec.json.encode(body)
    token = read_credentials(layout).control_token
    request = urllib.request.Request(  # noqa: S310 - http
        f"{running.url}{PREFIX}/{path}",
        data=data,
        method=method,
        headers={"Authorization": f"Bearer {token}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return as_object(msgspec.json.decode(answer.read()))
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise MesaformError(f"the local cloud refused: {text}", where=f"{PREFIX}/{path}") from None
    except (OSError, TimeoutError, HTTPException):
        return None


def stop(root: Path) -> bool:
    """End the daemon and every machine, also those of a daemon that was killed.

    Returns whether anything ran.

    Raises:
        Busy: processes do not end; the message names them.

    """
    layout = Layout(root.resolve())
    running = find(layout.root)
    if running is not None:
        _end_daemon(layout, running.pid)
    had_machines = _kill_machines(layout)
    if machine_kind.read(layout) == "containers":
        from mesaform.localcloud.containers.runner import remove_everything

        remove_everything(layout)
    for path in (layout.pid, layout.endpoint):
        path.unlink(missing_ok=True)
    return running is not None or had_machines


def _end_daemon(layout: Layout, pid: int) -> None:
    """End the daemon's process; kill it after the time-out.

    A process that exits gives up its lock some moments before it has ended.
    """
    process = proc.read_process(pid)
    processes.send(pid, signal.SIGTERM)
    until = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < until:
        if not _is_locked(layout) and not (process and proc.is_alive(pid, process.start_ticks)):
            return
        time.sleep(POLL_S)
    if _is_locked(layout):
        processes.send(pid, signal.SIGKILL)


def _kill_machines(layout: Layout) -> bool:
    """Kill the machines that are left without a daemon; whether there were any."""
    names = {path.name for path in layout.machines.iterdir()} if layout.machines.is_dir() else set()
    census, had_any = processes.Census(), False
    until = time.monotonic() + STOP_TIMEOUT_S
    while pids := _members(census, names):
        had_any = True
        for pid in pids:
            processes.send(pid, signal.SIGKILL)
        if time.monotonic() > until:
            raise Busy(
                f"processes {sorted(pids)} of local machines do not end",
                where=str(layout.machines),
            )
        time.sleep(POLL_S)
    for name in names:
        boot.drop_record(layout, name)
    return had_any


def _members(census: processes.Census, names: Iterable[str]) -> set[int]:
    """The pids of the processes of these machines."""
    members = census.take()
    return {pid for name in names for pid in members.get(name, ())}


class Instance(TypedDict):
    """A machine for `mesaform local status`; `pid` is None while it has no process."""

    instance_id: str
    address: str
    state: str
    pid: int | None
    image_id: str
    instance_type: str
    zone: str
    region: str


class Status(TypedDict):
    """What `mesaform local status` shows.

    Attributes:
        hypervisor: whether the hypervisor asks the endpoint for work.
        storage_error: why the account cannot be saved now; empty if it can.
        not_saved: services whose state a crash would lose, with the reason.
        set_aside: the records that could not be read, where they are kept, and what to do.

    """

    running: bool
    url: str | None
    pid: int | None
    hypervisor: bool
    storage_error: str
    not_saved: JsonObject
    set_aside: list[str]
    instances: list[Instance]
    faults: list[JsonObject]


def status(root: Path) -> Status:
    """The daemon's state. One that does not answer counts as not running."""
    layout = Layout(root.resolve())
    running = find(layout.root)
    if running is None:
        return _not_running(layout, None)
    answers = [ask(layout.root, path) for path in ("health", "machines", "faults")]
    health, machines, listed = (answer or {} for answer in answers)
    if not all(answers):  # it may end between two answers
        return _not_running(layout, running)
    world = msgspec.convert(machines, World)
    return {
        "running": True,
        "url": running.url,
        "pid": running.pid,
        "hypervisor": bool(health["hypervisor"]),
        "storage_error": str(health["storage_error"]),
        "not_saved": as_object(health["not_saved"]),
        "set_aside": _sentences(layout),
        "instances": [_instance(layout, machine) for machine in world.machines],
        "faults": [as_object(item) for item in as_list(listed["faults"])],
    }


def _not_running(layout: Layout, silent: Running | None) -> Status:
    """The status without a daemon, or with one that does not answer."""
    return {
        "running": False,
        "url": silent.url if silent else None,
        "pid": silent.pid if silent else None,
        "hypervisor": False,
        "storage_error": "",
        "not_saved": {},
        "set_aside": _sentences(layout),
        "instances": [],
        "faults": [],
    }


def _sentences(layout: Layout) -> list[str]:
    return [
        f"a record of {item.place} could not be read and is {item.detail} "
        "(rename it without .set-aside to use it again, delete it to give it up)"
        for item in records_set_aside(layout)
    ]


def _instance(layout: Layout, machine: Machine) -> Instance:
    return {
        "instance_id": machine.instance_id,
        "address": machine.address,
        "state": machine.state,
        "pid": _pid_of(layout, machine.instance_id),
        "image_id": machine.image_id,
        "instance_type": machine.instance_type,
        "zone": machine.zone,
        "region": machine.region,
    }


def require(root: Path) -> Running:
    """The running daemon of this folder.

    Raises:
        MissingPrerequisite: there is none.

    """
    running = find(root)
    if running is None:
        raise MissingPrerequisite(
            "the local cloud is not running", where=str(root), fix="start it: mesaform local start"
        )
    return running
