"""A master cut off from all others by packet filter. Needs root and nft."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import Site, last_for
from tests.support.cluster_harness import until

CUT_S = 20.0
TABLE = "mesaform_faults"


@contextmanager
def cut_off(address: str) -> Iterator[None]:
    """Drop all packets from and to an address for the block, except its own."""
    rules = f"""
    table ip {TABLE} {{
      chain input {{
        type filter hook input priority 0;
        ip saddr {address} ip daddr != {address} drop
        ip daddr {address} ip saddr != {address} drop
      }}
    }}
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", TABLE], check=True)


def cut_leader_off(site: Site) -> Outcome:
    """Cut the leading master off; another leads while it is away."""
    if shutil.which("nft") is None:
        return Outcome(None, note="nft is missing")
    address = until("a master leads", site.engine_leader, 60)
    with cut_off(address):
        recovery_s = site.recovery(
            "another master leads", lambda: site.engine_leader() not in (None, address)
        )
        last_for(max(0.0, CUT_S - recovery_s))
    site.recovery("one master leads", site.is_serving)
    return Outcome(recovery_s, lost=site.lost())


SCENARIOS = (Scenario("network", "leading master cut off, 20 s", 10, cut_leader_off),)
