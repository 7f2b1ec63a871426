"""`python -m mesaform.engine master|agent`: the two programs of the embedded engine.

Variables MESOS_* configure them.
"""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Run the program that the argument names, and return its exit code."""
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
