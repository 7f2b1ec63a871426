"""The process that stays with one task: it outlives the agent, reaps the task's whole family, and records how it ended.

Run by path as `python -I -S runner.py META_DIR STARTED_FD LC_CTYPE IDENTITY CGROUPS PROGRAM ARGV0 ARG…` with the task's environment,
folder and output already set. Only what is built into the interpreter is imported, to stay below 10 MiB; nothing of this
package is. Signals: SIGTERM asks the task to end, SIGUSR1 kills everything of it.

In META_DIR: `runner` is made first, whole and exclusively ("pid start-time boot-id"): whoever makes it owns the launch, so an
agent that makes it (empty) has stopped this runner from ever starting the task. `exit` holds wait(2)'s status, durable before
this process ends.
"""

from __future__ import annotations

import _ctypes
import _signal  # type: ignore[import-not-found, unused-ignore]
import posix
import sys

PR_SET_CHILD_SUBREAPER = 36
SIGNALS = {_signal.SIGTERM, _signal.SIGUSR1}
NOT_EXECUTABLE = 1  # what Mesos' command executor exits with


def write(path: str, text: str) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
    posix.write(fd, text.encode())
    posix.fsync(fd)
    posix.close(fd)


def write_durably(folder: str, name: str, text: str) -> None:
    """Write a file that is whole or absent after a crash."""
    write(f"{folder}/.{name}", text)
    posix.rename(f"{folder}/.{name}", f"{folder}/{name}")
    sync_folder(folder)


def sync_folder(folder: str) -> None:
    fd = posix.open(folder, posix.O_RDONLY)
    posix.fsync(fd)
    posix.close(fd)


def read_file(path: str) -> str:
    fd = posix.open(path, posix.O_RDONLY)
    try:
        return posix.read(fd, 65536).decode()
    finally:
        posix.close(fd)


def claim(folder: str) -> bool:
    """Own the launch; False when the agent took it back."""
    start_time = read_file("/proc/self/stat").rpartition(")")[2].split()[19]
    boot_id = read_file("/proc/sys/kernel/random/boot_id").strip()
    write(f"{folder}/.runner", f"{posix.getpid()} {start_time} {boot_id}\n")
    try:
        posix.link(f"{folder}/.runner", f"{folder}/runner")
    except FileExistsError:
        return False
    sync_folder(folder)
    return True


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent dies, so that none escapes."""
    prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
    _ctypes.call_function(prctl, (PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def become(identity: str) -> None:
    """`uid:gid:group,group`; empty keeps the present user."""
    if identity:
        uid, gid, groups = identity.split(":")
        posix.setgroups([int(group) for group in groups.split(",") if group])
        posix.setgid(int(gid))
        posix.setuid(int(uid))


def enter_cgroups(cgroups: str) -> None:
    for procs in cgroups.split(":"):
        if procs:
            fd = posix.open(procs, posix.O_WRONLY)
            posix.write(fd, b"0")
            posix.close(fd)


def execute(program: str, argv: list[str]) -> str | None:
    """Replace this process, looking in PATH; returns only when that failed, with the reason."""
    environment = posix.environ
    name = program.encode("utf-8", "surrogateescape")
    folders = environment.get(b"PATH", b"/usr/bin:/bin").split(b":")
    candidates = [name] if b"/" in name else [folder + b"/" + name for folder in folders if folder]
    problem: str | None = "No such file or directory"
    for candidate in candidates:
        try:
            posix.execve(candidate, argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problem = error.strerror
    return problem


def run_command(program: str, argv: list[str], identity: str, cgroups: str) -> None:
    """In the child: never returns."""
    try:
        posix.setsid()
        enter_cgroups(cgroups)
        become(identity)
        for number in (
            _signal.SIGPIPE,
            _signal.SIGTERM,
            _signal.SIGUSR1,
            _signal.SIGINT,
            _signal.SIGXFSZ,
        ):
            _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)
        posix.write(
            2,
            f"Failed to execute {program!r}: {execute(program, argv)}\n".encode("utf-8", "replace"),
        )
    except BaseException as error:
        posix.write(2, f"Failed to start the task: {error!r}\n".encode("utf-8", "replace"))
    finally:
        posix._exit(NOT_EXECUTABLE)  # noqa: SLF001 its only name


def children() -> list[int]:
    """The present children, or none where the kernel does not tell."""
    own = posix.getpid()
    try:
        return [int(pid) for pid in read_file(f"/proc/{own}/task/{own}/children").split()]
    except OSError:
        return []


def send(number: int, pid: int, *, group: bool = False) -> None:
    try:  # noqa: SIM105 contextlib is too big for this process
        (posix.killpg if group else posix.kill)(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def end_family(leader: int) -> None:
    """Kill what is left: the command's group, then every orphan that comes to us, until there is none."""
    send(_signal.SIGKILL, leader, group=True)
    while True:
        family = children()
        for pid in family:
            send(_signal.SIGKILL, pid)
        try:
            pid, _ = posix.waitpid(-1, 0 if family else posix.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def listen(leader: int) -> None:
    """From now on pass signals on to the task."""

    def on_signal(number: int, _frame: object) -> None:
        if number == _signal.SIGTERM:
            send(_signal.SIGTERM, leader, group=True)
            return
        send(_signal.SIGKILL, leader, group=True)
        for pid in children():
            send(_signal.SIGKILL, pid)

    for number in SIGNALS:
        _signal.signal(number, on_signal)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)


def wait_for(leader: int) -> int:
    """The command's wait status; orphans that end meanwhile are reaped."""
    while True:
        pid, status = posix.waitpid(-1, 0)
        if pid == leader:
            return status


def announce(started_fd: int, leader: int) -> None:
    try:  # noqa: SIM105 contextlib is too big for this process
        posix.write(started_fd, f"{leader}\n".encode())
    except OSError:
        pass  # the agent is gone; the next one reads the files
    posix.close(started_fd)


def main() -> None:
    folder, started_fd, lc_ctype, identity, cgroups, program = sys.argv[1:7]
    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    if lc_ctype == "unset":  # the interpreter may have set it for itself
        posix.environ.pop(b"LC_CTYPE", None)
    posix.set_inheritable(int(started_fd), False)
    adopt_orphans()
    if not claim(folder):
        return
    leader = posix.fork()
    if leader == 0:
        run_command(program, sys.argv[7:], identity, cgroups)
    announce(int(started_fd), leader)
    listen(leader)
    status = wait_for(leader)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    end_family(leader)
    write_durably(folder, "exit", f"{status}\n")


if __name__ == "__main__":
    main()
