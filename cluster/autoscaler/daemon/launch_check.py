"""Whether a launch from the journal is one that this cluster's spec allows. Pure.

ZooKeeper's access lists keep others from writing the journal; this check bounds what a launch can
buy if they fail, or if the spec has changed since.
"""

from __future__ import annotations

from mesaform.autoscaler.model.snapshot import Intent
from mesaform.aws.ports import LaunchRequest
from mesaform.config.schema import ClusterSpec, Pool


def problem_with(intent: Intent, spec: ClusterSpec, term: int) -> str:
    """Why a launch must not be carried out; empty if it may.

    A launch whose machines are known is only waited for, so its size does not matter.
    """
    if intent.epoch > term:
        return f"term {intent.epoch} wrote the launch, and this is term {term}"
    if intent.instance_ids is not None:
        return ""
    pool = next((pool for pool in spec.agents if pool.name == intent.request.pool), None)
    if pool is None:
        return f"the cluster has no pool {intent.request.pool[:100]!r}"
    return _problem_with_size(intent.request, pool)


def _problem_with_size(request: LaunchRequest, pool: Pool) -> str:
    if request.count > max(pool.max, pool.count):
        return f"{request.count} machines are more than the pool's max, {pool.max}"
    unknown = {offering.instance_type for offering in request.offerings} - set(pool.types)
    return f"the pool has no type {min(unknown)[:100]!r}" if unknown else ""
