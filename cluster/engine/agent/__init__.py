"""The embedded engine's agent: registers with the leading master, runs tasks, reports statuses.

Pure: `task_fsm` (states of a task), `statuses` (what Mesos reports in each), `streams` (updates
until they are acknowledged), `health`, and `core` (all of it together). Shell: `daemon` composes
the link, the containerizer, the files on disk and the HTTP server.
"""

from __future__ import annotations


def main() -> int:
    """Run an agent as the environment configures it until a signal; return the exit code."""
    import os

    # gRPC's fork handlers wait for its threads. The agent's children call exec at once.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from mesaform.engine.agent.daemon import run

    return run()
