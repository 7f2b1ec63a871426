"""Published rules of other autoscalers as policies of the simulated world, one per module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mesaform.aws.ports import Offering
from mesaform.common.errors import BadInput
from mesaform.config.schema import ClusterSpec
from mesaform.simulator.baselines.cluster_autoscaler import ClusterAutoscaler
from mesaform.simulator.baselines.clusterman import Clusterman
from mesaform.simulator.baselines.karpenter import Karpenter
from mesaform.simulator.world import Scaler

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
