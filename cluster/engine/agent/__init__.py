"""The embedded engine's agent: registers with the leading master, runs tasks, and tells what became of them.

Pure: `life` (a task's states), `statuses` (what Mesos says in each), `streams` (updates until acknowledged), `core` (all of
it together), `health`. Shell: `daemon` composes the link, the containerizer, the store on disk and the HTTP server.
"""

from __future__ import annotations


def main() -> int:
    """Run an agent as the environment configures it until a signal ends it; the exit code."""
    import os

    os.environ.setdefault(
        "GRPC_ENABLE_FORK_SUPPORT", "0"
    )  # its fork handlers wait for its threads; our children exec at once
    from mesaform.engine.agent.daemon import run

    return run()
