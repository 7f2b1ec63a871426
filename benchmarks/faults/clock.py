"""A jump of the clock.

Machines of the local target share the host's real-time clock. A time namespace of Linux moves only
the monotonic clocks (time_namespaces(7)), and a jump of the host's clock would hit every other
program. The autoscaler's reaction to jumps is tested with its injected clock.
"""

from __future__ import annotations

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import Site

REASON = "machines share the host's clock; the tests inject jumps through the clock port"


def jump(_site: Site) -> Outcome:
    return Outcome(None, note=REASON)


SCENARIOS = (Scenario("clock", "clock jump", 0, jump),)
