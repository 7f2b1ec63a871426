"""`python -m benchmarks.faults [--engine ENGINE] [--only GROUP] [--seed N] [--json]`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import clock, disks, frozen, killed, network, quorum, upgrades, verbs
from benchmarks.faults.scenario import Outcome, Row, Scenario, as_json, as_text
from benchmarks.faults.site import Site
from harness.cluster_harness import CLUSTER, ClusterHarness
from harness.mesos_prefix import PREFIX_VARIABLE, mesos_prefix
from mesaform.topology.user_data import Engine

ON_A_CLUSTER = (
    *killed.SCENARIOS,
    *frozen.SCENARIOS,
    *quorum.SCENARIOS,
    *disks.SCENARIOS,
    *network.SCENARIOS,
    *clock.SCENARIOS,
    *verbs.SCENARIOS,
    *upgrades.SCENARIOS,
)
SHOWN_LINES = 6
"""Lines of the end of an error that are shown: a verb's own error is there."""
GROUPS = sorted({scenario.group for scenario in (*ON_A_CLUSTER, *verbs.ON_AN_EMPTY_ACCOUNT)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected faults and print the table; 1 if anything was lost, doubled or left."""
    options = _parse(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"faults: seed {seed}; repeat with --seed {seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="mesaform-faults-") as folder:
        road = a_cluster(Path(folder), options.engine, options.cidr)
        try:
            rows = run_all(Site(road, random.Random(seed)), options.only)
        finally:
            road.end()
    print(as_json(rows, seed) if options.json else as_text(rows))
    return 0 if all(row.outcome.is_whole for row in rows) else 1


def a_cluster(folder: Path, engine: Engine, cidr: str) -> ClusterHarness:
    """The cluster under test, which is not raised yet."""
    return ClusterHarness(
        folder,
        name="faults",
        cidr=cidr,
        template=f"{CLUSTER}engine: {engine}\n",
        mesos=mesos_prefix() if engine == "mesos" else None,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--only", action="append", choices=GROUPS, help="a group of faults")
    parser.add_argument("--seed", type=int, help="of the random choices and moments")
    parser.add_argument("--cidr", default="127.93.0.0/16", help="of the cluster's machines")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--engine", choices=("embedded", "mesos"), default="embedded")
    options = parser.parse_args(arguments)
    if options.engine == "mesos" and mesos_prefix() is None:
        parser.error(f"--engine mesos: {PREFIX_VARIABLE} names no folder with Apache Mesos")
    return options


def run_all(site: Site, only: Sequence[str] | None) -> list[Row]:
    """Raise the cluster, run its faults, take it down, run the faults of the verbs."""
    rows: list[Row] = []
    site.road.start_local()
    site.road.mesaform("bake", timeout_s=600)  # recovery times are without a bake
    on_cluster = _selected(ON_A_CLUSTER, only)
    if on_cluster:
        site.road.mesaform("up", "--yes", timeout_s=600)
        site.start_steady_load()
        rows += [_run(scenario, site) for scenario in on_cluster]
        site.road.mesaform("down", "--yes", "--keep-local", timeout_s=600)
        rows.append(Row(Scenario("down", "down after all of it", 75, _nothing), _remains(site)))
    rows += [_run(scenario, site) for scenario in _selected(verbs.ON_AN_EMPTY_ACCOUNT, only)]
    return rows


def _selected(scenarios: Sequence[Scenario], only: Sequence[str] | None) -> list[Scenario]:
    return [scenario for scenario in scenarios if not only or scenario.group in only]


def _run(scenario: Scenario, site: Site) -> Row:
    """Run one fault; a failure is a row, so that the others run as well."""
    try:
        outcome = scenario.run(site)
    except (AssertionError, LookupError, OSError, StopIteration) as error:
        lines = str(error).splitlines() or [repr(error)]
        outcome = Outcome(None, note="! " + "\n    ".join([lines[0], *lines[-SHOWN_LINES:]]))
    row = Row(scenario, outcome)
    print(row.text(), file=sys.stderr, flush=True)
    return row


def _remains(site: Site) -> Outcome:
    left = sum(map(len, site.road.left_in_ec2().values())) + len(site.road.processes())
    return Outcome(0.0, left_over=left)


def _nothing(_site: Site) -> Outcome:
    return Outcome(0.0)


if __name__ == "__main__":
    sys.exit(main())
