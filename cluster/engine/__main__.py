"""`python -m mesaform.engine master|agent`: the embedded engine's two programs, configured by MESOS_* variables."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Run one of the programs; its exit code."""
    if arguments == ["master"]:
        from mesaform.engine.master.shell import main as run_master

        return run_master()
    if arguments == ["agent"]:
        from mesaform.engine.agent import main as run_agent

        return int(run_agent() or 0)
    sys.stderr.write("usage: python -m mesaform.engine master|agent\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
