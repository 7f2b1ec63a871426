"""Effects of operators' overrides at one time: a pause, and other bounds of a pool. Pure.

Hints become demand in `demand`, drains become commands in `removal_steps`.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.aws.overrides import Override, in_force
from mesaform.config.schema import ClusterSpec, Pool


def paused(overrides: Iterable[Override], now: float) -> Reason | None:
    """Why nothing is bought or removed for now; None when no pause is in force.

    Of several pauses the one that lasts longest counts.
    """
    last = max(
        (override for override in in_force(overrides, now) if override.kind == "pause"),
        key=lambda override: override.until,
        default=None,
    )
    if last is None:
        return None
    return Reason.of(ReasonCode.PAUSED, by=last.by, until_epoch_s=last.until, note=last.reason)


def with_bounds(spec: ClusterSpec, overrides: Iterable[Override], now: float) -> ClusterSpec:
    """The spec with the bounds in force; of two overrides of one bound the later one counts.

    A minimum is at most the maximum, and neither is below Terraform's `count`.
    """
    given = [override for override in in_force(overrides, now) if override.kind == "bound"]
    if not given:
        return spec
    return spec.model_copy(update={"agents": tuple(_bounded(pool, given) for pool in spec.agents)})


def _bounded(pool: Pool, overrides: Iterable[Override]) -> Pool:
    bounds = {
        override.bound: override.count for override in overrides if override.pool == pool.name
    }
    if not bounds:
        return pool
    most = max(pool.count, bounds.get("max", pool.max))
    least = min(most, max(pool.count, bounds.get("min", pool.floor)))
    return pool.model_copy(update={"min": least, "max": most})
