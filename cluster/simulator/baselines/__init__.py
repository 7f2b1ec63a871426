"""Rivals' published rules as policies of the simulated world, one a file. What each simplifies is said in its docstring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from cluster.aws.ports import Offering
from cluster.common.errors import BadInput
from cluster.config.schema import ClusterSpec
from cluster.simulator.baselines.cluster_autoscaler import ClusterAutoscaler
from cluster.simulator.baselines.clusterman import Clusterman
from cluster.simulator.baselines.karpenter import Karpenter
from cluster.simulator.world import Scaler

Make = Callable[[ClusterSpec, Mapping[str, Sequence[Offering]]], Scaler]

BASELINES: Mapping[str, Make] = {
    "clusterman": Clusterman,
    "cluster-autoscaler": ClusterAutoscaler,
    "karpenter": Karpenter,
    "karpenter-when-empty": partial(Karpenter, moves=False),
}


def baseline(name: str) -> Make:
    """The baseline of that name.

    Raises:
        BadInput: there is none.

    """
    if name not in BASELINES:
        raise BadInput(f"no baseline {name!r}; there are {', '.join(BASELINES)}", where="--against")
    return BASELINES[name]
