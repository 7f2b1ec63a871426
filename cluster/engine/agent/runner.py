"""The runner of one task: starts its command, reaps its processes, and records its exit status.

A runner outlives the agent. The agent runs it by path, with the task's environment, working
directory and output already set:

    python -I -S runner.py META_DIR STARTED_FD LC_CTYPE IDENTITY CGROUPS PROGRAM ARGV0 ARG…

It imports `os`, `sys`, `signal` and `ctypes` of the standard library, and nothing of this package.
Every running task has a runner, so each further import costs its memory once per task
(docs/engine.md has the figures).

Signals: SIGTERM is passed on to the task's process group. SIGUSR1 kills every process of the task.

Files in META_DIR:
    runner  "pid start-time boot-id". It is created exclusively before the task starts, and it owns
            the launch. An agent that creates it first (empty) prevents the launch.
    exit    The command's status as wait(2) gives it. It is durable before the runner ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
NOT_EXECUTABLE = 1  # the exit code of Mesos' command executor in this case
MAX_PROC_FILE_BYTES = 65536
SIGNALS = {signal.SIGTERM, signal.SIGUSR1}


def write_file(path: str, text: str) -> None:
    """Replace a file's content. It is durable when this returns, its folder entry is not."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, text.encode())
    os.fsync(fd)
    os.close(fd)


def write_durably(folder: str, name: str, text: str) -> None:
    """Write a file that is complete or absent after a crash."""
    write_file(f"{folder}/.{name}", text)
    os.rename(f"{folder}/.{name}", f"{folder}/{name}")  # noqa: PTH104 pathlib costs memory
    sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Make the folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def read_file(path: str) -> str:
    """The first 64 KiB of a file; /proc gives them in one read."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, MAX_PROC_FILE_BYTES).decode()
    finally:
        os.close(fd)


def claim_launch(folder: str) -> bool:
    """Create the `runner` file; False when the agent created it first."""
    start_time = read_file("/proc/self/stat").rpartition(")")[2].split()[19]
    boot_id = read_file("/proc/sys/kernel/random/boot_id").strip()
    write_file(f"{folder}/.runner", f"{os.getpid()} {start_time} {boot_id}\n")
    try:
        os.link(f"{folder}/.runner", f"{folder}/runner")
    except FileExistsError:
        return False
    sync_folder(folder)
    return True


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent dies, so that none is lost."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_identity(identity: str) -> None:
    """Take on `uid:gid:group,group`; an empty text keeps the present user."""
    if identity:
        uid, gid, groups = identity.split(":")
        os.setgroups([int(group) for group in groups.split(",") if group])
        os.setgid(int(gid))
        os.setuid(int(uid))


def enter_cgroups(cgroups: str) -> None:
    """Move this process into the groups of these `cgroup.procs` files, joined by colons."""
    for procs in cgroups.split(":"):
        if procs:
            fd = os.open(procs, os.O_WRONLY)
            os.write(fd, b"0")
            os.close(fd)


def execute(program: str, argv: list[str]) -> str | None:
    """Replace this process with a program that is looked up in PATH.

    Returns only when that failed, with the reason.
    """
    environment = os.environb
    name = os.fsencode(program)
    folders = environment.get(b"PATH", b"/usr/bin:/bin").split(b":")
    candidates = [name] if b"/" in name else [folder + b"/" + name for folder in folders if folder]
    problem: str | None = "No such file or directory"
    for candidate in candidates:
        try:
            os.execve(candidate, argv, environment)  # noqa: S606 the task's own command
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problem = error.strerror
    return problem


def run_command(program: str, argv: list[str], identity: str, cgroups: str) -> None:
    """Become the task's command. Runs in the child process and never returns."""
    try:
        os.setsid()
        enter_cgroups(cgroups)
        set_identity(identity)
        for number in (
            signal.SIGPIPE,
            signal.SIGTERM,
            signal.SIGUSR1,
            signal.SIGINT,
            signal.SIGXFSZ,
        ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        problem = f"Failed to execute {program!r}: {execute(program, argv)}\n"
        os.write(2, problem.encode("utf-8", "replace"))
    except BaseException as error:
        os.write(2, f"Failed to start the task: {error!r}\n".encode("utf-8", "replace"))
    finally:
        os._exit(NOT_EXECUTABLE)


def children() -> list[int]:
    """The pids of the present children; none where the kernel has no such file."""
    own_pid = os.getpid()
    try:
        return [int(pid) for pid in read_file(f"/proc/{own_pid}/task/{own_pid}/children").split()]
    except OSError:
        return []


def send_signal(number: int, pid: int, *, group: bool = False) -> None:
    """Signal a process or its group; one that has ended is ignored."""
    try:  # noqa: SIM105 contextlib costs memory
        (os.killpg if group else os.kill)(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def end_descendants(leader: int) -> None:
    """Kill the command's group, then every orphan that this process adopts, until none is left."""
    send_signal(signal.SIGKILL, leader, group=True)
    while True:
        pids = children()
        for pid in pids:
            send_signal(signal.SIGKILL, pid)
        try:
            pid, _ = os.waitpid(-1, 0 if pids else os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def forward_signals(leader: int) -> None:
    """Handle SIGTERM and SIGUSR1 from now on."""

    def on_signal(number: int, _frame: object) -> None:
        if number == signal.SIGTERM:
            send_signal(signal.SIGTERM, leader, group=True)
            return
        send_signal(signal.SIGKILL, leader, group=True)
        for pid in children():
            send_signal(signal.SIGKILL, pid)

    for number in SIGNALS:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def wait_for(leader: int) -> int:
    """The command's wait status. Orphans that end before it are reaped."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == leader:
            return status


def report_start(started_fd: int, leader: int) -> None:
    """Write the command's pid for the agent. An agent that ended reads META_DIR instead."""
    try:  # noqa: SIM105 contextlib costs memory
        os.write(started_fd, f"{leader}\n".encode())
    except OSError:
        pass
    os.close(started_fd)


def main() -> None:
    """Run the task that the arguments describe."""
    folder, started_fd, lc_ctype, identity, cgroups, program = sys.argv[1:7]
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if lc_ctype == "unset":  # the interpreter may have set it for itself
        os.environ.pop("LC_CTYPE", None)
    os.set_inheritable(int(started_fd), False)
    adopt_orphans()
    if not claim_launch(folder):
        return
    leader = os.fork()
    if leader == 0:
        run_command(program, sys.argv[7:], identity, cgroups)
    report_start(int(started_fd), leader)
    forward_signals(leader)
    status = wait_for(leader)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    end_descendants(leader)
    write_durably(folder, "exit", f"{status}\n")


if __name__ == "__main__":
    main()
