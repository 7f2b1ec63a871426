"""The local cloud's programs: supervise, endpoint, hypervisor and cloudinit.

`python -m mesaform.localcloud <program>` runs one. People use `mesaform local`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from mesaform.common.logs import configure_logging
from mesaform.localcloud.layout import Layout


def _supervise(root: str, socket_fd: str, lock_fd: str, host: str, port: str) -> None:
    from mesaform.localcloud.supervisor import Listener, supervise

    supervise(Layout(Path(root)), Listener(int(socket_fd), host, int(port)), int(lock_fd))


def _serve(root: str, socket_fd: str) -> None:
    from mesaform.localcloud.endpoint import serve

    serve(Layout(Path(root)), int(socket_fd))


def _run_hypervisor(root: str, url: str) -> None:
    from mesaform.localcloud.hypervisor import run

    run(Layout(Path(root)), url)


def _run_cloudinit() -> None:
    from mesaform.localcloud.cloudinit import main as run_cloudinit

    run_cloudinit()


PROGRAMS: dict[str, Callable[..., None]] = {
    "supervise": _supervise,
    "endpoint": _serve,
    "hypervisor": _run_hypervisor,
    "cloudinit": _run_cloudinit,
}


def main(arguments: list[str]) -> None:
    """Run the program that the first argument names, with the others as its arguments."""
    configure_logging()
    program = PROGRAMS.get(arguments[0])
    if program is None:
        sys.exit(f"unknown program {arguments[0]}")
    program(*arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
