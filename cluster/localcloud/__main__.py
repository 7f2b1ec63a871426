"""The local cloud's processes: `python -m mesaform.localcloud supervise|endpoint|hypervisor|cloudinit …`. People use `mesaform local`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog

from mesaform.localcloud.layout import Layout


def main(arguments: list[str]) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    program, rest = arguments[0], arguments[1:]
    if program == "cloudinit":
        from mesaform.localcloud.cloudinit import main as run_cloudinit

        run_cloudinit()
        return
    layout = Layout(Path(rest[0]))
    if program == "supervise":
        from mesaform.localcloud.supervisor import supervise

        supervise(layout, int(rest[1]), int(rest[2]), rest[3], int(rest[4]))
    elif program == "endpoint":
        from mesaform.localcloud.endpoint import serve

        serve(layout, int(rest[1]), rest[2], int(rest[3]))
    elif program == "hypervisor":
        from mesaform.localcloud.hypervisor import run

        run(layout, rest[1])
    else:
        sys.exit(f"unknown program {program}")


if __name__ == "__main__":
    main(sys.argv[1:])
