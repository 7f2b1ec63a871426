"""ZooKeeper of one, two and three masters away for 40 s."""

from __future__ import annotations

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import Site, last_for, stopped

AWAY_S = 40.0


def zookeepers_away(count: int, target_s: float) -> Scenario:
    """A scenario that stops ZooKeeper on `count` masters; the time counts from its return."""

    def run(site: Site) -> Outcome:
        masters = site.random.sample(site.road.masters(), count)
        with stopped(*(site.zookeeper(address) for address in masters)):
            last_for(AWAY_S)
        recovery_s = site.recovery("the cluster serves", site.is_serving)
        return Outcome(recovery_s, lost=site.lost())

    return Scenario("zookeeper", f"ZooKeeper away on {count} for {AWAY_S:.0f} s", target_s, run)


SCENARIOS = tuple(zookeepers_away(count, 3) for count in (1, 2, 3))
