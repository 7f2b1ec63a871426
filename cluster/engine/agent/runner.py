r"""The runner of one task: starts its command, reaps its processes, and records its exit status.

A runner outlives the agent. The agent runs it by path, with the task's environment, working
directory and output already set:

    python -I -S runner.py META_DIR STARTED_FD OWN_CGROUPS LC_CTYPE IDENTITY CGROUPS LIMITS \
        PROGRAM ARGV0 ARG…

It imports `os`, `sys`, `select`, `signal` and `ctypes` of the standard library, and nothing of this
package. Every running task has a runner, so each further import costs its memory once per task
(docs/engine.md has the figures).

Signals: SIGTERM is passed on to the task's process group. SIGUSR1 kills every process of the task.

OWN_CGROUPS are the `cgroup.procs` files that the runner enters, CGROUPS those of its command.

STARTED_FD gets the command's pid in a line, or `!` and the reason when nothing was started.

LIMITS is `stdout-bytes:stderr-bytes:files`. The command writes into pipes, and the runner copies
them to the files `stdout` and `stderr` of its folder. A file that has reached its size is renamed
to `stdout.1`, the one before it to `stdout.2`, and so on; `files` of them are kept, the present one
included, as by Mesos' LogrotateContainerLogger. Output that the disk does not take is dropped.

Files in META_DIR:
    runner  "pid start-time boot-id". It is created exclusively before the task starts, and it owns
            the launch. An agent that creates it first (empty) prevents the launch.
    exit    The command's status as wait(2) gives it, after blanks that hold its place: a disk that
            has become full takes it, too. It is durable before the runner ends.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
NOT_EXECUTABLE = 1  # the exit code of Mesos' command executor in this case
MAX_PROC_FILE_BYTES = 65536
SIGNALS = {signal.SIGTERM, signal.SIGUSR1}
EXIT_WIDTH = 15  # digits of a wait status, with room
CHUNK_BYTES = 65536
OUTPUT_MODE = 0o640
OUTPUTS = ("stdout", "stderr")  # the files of descriptors 1 and 2


def write_file(path: str, text: str) -> None:
    """Replace a file's content. It is durable when this returns, its folder entry is not."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, text.encode())
    os.fsync(fd)
    os.close(fd)


def reserve_exit(folder: str) -> int:
    """Create the `exit` file with blanks, so that a full disk takes the status later."""
    fd = os.open(f"{folder}/exit", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, b" " * EXIT_WIDTH + b"\n")
    return fd


def record_exit(fd: int, status: int) -> None:
    """Write the status over the blanks. One write within a disk sector is complete or absent."""
    os.pwrite(fd, f"{status:<{EXIT_WIDTH}}".encode(), 0)
    os.fsync(fd)


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


class Output:
    """One of the command's outputs: a pipe, and the file that it is copied to.

    Args:
        fd: the open file, 1 or 2.
        limit_bytes: the size at which the file is rotated.
        files: how many files are kept.
        owner: uid and gid of new files; None keeps those of this process.

    """

    def __init__(
        self, fd: int, limit_bytes: int, files: int, owner: tuple[int, int] | None
    ) -> None:
        self.name = OUTPUTS[fd - 1]
        self.pipe, self.end = os.pipe()
        os.set_blocking(self.pipe, False)
        self._fd = os.dup(fd)
        self._limit_bytes = limit_bytes
        self._files = files
        self._owner = owner
        self._size = os.fstat(fd).st_size

    def copy(self) -> bool:
        """Copy what is in the pipe now; False at its end."""
        while True:
            try:
                data = os.read(self.pipe, CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._write(data)
            if len(data) < CHUNK_BYTES:
                return True

    def _write(self, data: bytes) -> None:
        if self._size > 0 and self._size + len(data) > self._limit_bytes:
            self._rotate()
        try:
            while data:
                written = os.write(self._fd, data)
                self._size += written
                data = data[written:]
        except OSError:
            return  # a full disk: the task goes on without this output

    def _rotate(self) -> None:
        """Begin a new file. The task's user owns the folder, so nothing in it is followed."""
        try:
            for number in range(self._files - 1, 0, -1):
                older = self.name if number == 1 else f"{self.name}.{number - 1}"
                try:
                    os.rename(older, f"{self.name}.{number}")  # noqa: PTH104 pathlib costs memory
                except FileNotFoundError:
                    continue
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND
            fd = os.open(self.name, flags, OUTPUT_MODE)
            if self._owner is not None:
                os.fchown(fd, *self._owner)
            os.close(self._fd)
            self._fd = fd
        except OSError:
            os.ftruncate(self._fd, 0)  # the limit holds even where files cannot be renamed
        self._size = 0


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
            signal.SIGCHLD,
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


def reap(leader: int) -> int | None:
    """Reap every process that has ended; the command's wait status if it is among them."""
    result = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return result
        if pid == 0:
            return result
        if pid == leader:
            result = status


def wake_on_exit() -> int:
    """A pipe that becomes readable when a child ends."""
    read_fd, write_fd = os.pipe()
    for fd in (read_fd, write_fd):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    return read_fd


def wait_for(leader: int, outputs: list[Output], wake_fd: int) -> int:
    """The command's wait status. Its outputs are copied, and orphans are reaped meanwhile."""
    poll = select.poll()
    by_fd = {output.pipe: output for output in outputs}
    for fd in (wake_fd, *by_fd):
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == wake_fd:
                os.read(wake_fd, CHUNK_BYTES)
                status = reap(leader)
                if status is not None:
                    return status
            elif not by_fd[fd].copy():
                poll.unregister(fd)


def report_start(started_fd: int, text: str) -> None:
    """Write a line for the agent. An agent that ended reads META_DIR instead."""
    try:  # noqa: SIM105 contextlib costs memory
        os.write(started_fd, f"{text}\n".encode())
    except OSError:
        pass
    os.close(started_fd)


def open_outputs(limits: str, identity: str) -> list[Output]:
    """The outputs of the command, by the arguments."""
    *sizes, files = (int(number) for number in limits.split(":"))
    uid, gid, _ = identity.split(":") if identity else ("", "", "")
    owner = (int(uid), int(gid)) if identity else None
    return [Output(fd, sizes[fd - 1], files, owner) for fd in (1, 2)]


def start(outputs: list[Output], arguments: list[str]) -> int:
    """Start the command, and return its pid."""
    identity, cgroups, _limits, program, *argv = arguments
    leader = os.fork()
    if leader == 0:
        signal.set_wakeup_fd(-1)
        for fd, output in zip((1, 2), outputs, strict=True):
            os.dup2(output.end, fd)
        run_command(program, argv, identity, cgroups)
    for output in outputs:
        os.close(output.end)
    return leader


def main() -> None:
    """Run the task that the arguments describe."""
    folder, started_fd, own_groups, lc_ctype, *arguments = sys.argv[1:]
    identity, _, limits = arguments[:3]
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if lc_ctype == "unset":  # the interpreter may have set it for itself
        os.environ.pop("LC_CTYPE", None)
    os.set_inheritable(int(started_fd), False)
    adopt_orphans()
    try:
        enter_cgroups(own_groups)
        exit_fd = reserve_exit(folder)
        if not claim_launch(folder):
            return
    except OSError as error:  # such as a full disk
        report_start(int(started_fd), f"!{error.strerror}")
        return
    outputs = open_outputs(limits, identity)
    wake_fd = wake_on_exit()
    leader = start(outputs, arguments)
    report_start(int(started_fd), str(leader))
    forward_signals(leader)
    status = wait_for(leader, outputs, wake_fd)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    end_descendants(leader)
    for output in outputs:
        output.copy()
    record_exit(exit_fd, status)


if __name__ == "__main__":
    main()
