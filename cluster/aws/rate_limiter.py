"""EC2's request limits, kept on this side: token buckets as EC2 publishes them, and less after a refusal.

Nothing waits here: a call that would be one too many raises `Retryable` with when to come again, and the next pass does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mesaform.aws.errors import Fault, classify, error_code, translate_errors
from mesaform.common.errors import Retryable

OUR_SHARE = 0.5
"""The limits are the account's: of the calls that change something, half is left to everybody else."""

READING = (100.0, 20.0)
CHANGING = (50.0, 5.0)
BUCKETS: Mapping[str, tuple[float, float]] = {
    "CreateFleet": CHANGING,
    "TerminateInstances": (100.0, 5.0),
    "machines": (1000.0, 2.0),
}
"""Calls at once and calls a second, as the EC2 developer guide has them ("Request throttling for the Amazon EC2 API"); calls not named here
only read. `machines` is the bucket of machines launched, which is not halved: a burst that needs it all is rare, and EC2 says no itself."""

HALVED = frozenset({"CreateFleet", "TerminateInstances"})

LEAST_RATE = 1 / 16
"""To which part of its rate an action falls under refusals, at most."""

REFUSED_S = 2.0
REFUSED_MOST_S = 60.0
"""How long an action is left alone after a refusal, at first and at most: twice as long each time in a row."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens of one action. `slowed` is the part of its rate that refusals have left it; `refused` counts them in a row."""

    tokens: float
    at: float
    slowed: float = 1.0
    refused: int = 0
    closed_until: float = 0.0

    def filled(self, size: float, rate: float, now: float) -> Bucket:
        return replace(
            self, tokens=min(size, self.tokens + (now - self.at) * rate * self.slowed), at=now
        )

    def wait_s(self, cost: float, rate: float, now: float) -> float:
        """How long until `cost` tokens are there; 0 when they are."""
        short = max(0.0, cost - self.tokens) / (rate * self.slowed)
        return max(short, self.closed_until - now, 0.0)

    def after_refusal(self, now: float) -> Bucket:
        wait = min(REFUSED_MOST_S, REFUSED_S * 2.0**self.refused)
        return replace(
            self,
            tokens=0.0,
            at=now,
            slowed=max(LEAST_RATE, self.slowed / 2),
            refused=self.refused + 1,
            closed_until=now + wait,
        )

    def after_success(self) -> Bucket:
        return (
            self
            if self.slowed >= 1 and not self.refused
            else replace(self, slowed=min(1.0, self.slowed + 0.1), refused=0)
        )


class RateLimiter:
    """The buckets of one region, shared by all its callers; safe to use from several threads. `clock` gives seconds of any origin."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, Bucket] = {}

    @contextmanager
    def limit(self, action: str, machines: int = 0) -> Iterator[None]:
        """Make EC2 calls of one action inside; errors come out translated.

        Raises:
            Retryable: no token is left (nothing was called), or EC2 refused, which slows the action down.

        """
        self._take(action, machines)
        try:
            with translate_errors(f"ec2 {action}"):
                yield
        except Retryable as error:
            if classify(error_code(error.__cause__)) is Fault.THROTTLED:
                raise Retryable(
                    error.what, after_s=self._refused(action), where=error.where
                ) from error
            raise
        with self._lock:
            self._buckets[action] = self._bucket(action).after_success()

    def _take(self, action: str, machines: int) -> None:
        with self._lock:
            costs = {action: 1.0, **({"machines": float(machines)} if machines else {})}
            now = self._clock()
            wait = max(
                self._bucket(name).wait_s(min(cost, _limits(name)[0]), _limits(name)[1], now)
                for name, cost in costs.items()
            )
            if wait > 0:
                raise Retryable(
                    "more calls than EC2 allows: not made",
                    after_s=round(wait, 1),
                    where=f"ec2 {action}",
                )
            for name, cost in costs.items():
                bucket = self._bucket(name)
                self._buckets[name] = replace(bucket, tokens=bucket.tokens - cost)

    def _refused(self, action: str) -> float:
        with self._lock:
            bucket = self._buckets[action] = self._bucket(action).after_refusal(self._clock())
            return bucket.closed_until - bucket.at

    def _bucket(self, action: str) -> Bucket:
        size, rate = _limits(action)
        now = self._clock()
        return self._buckets.get(action, Bucket(size, now)).filled(size, rate, now)


def _limits(action: str) -> tuple[float, float]:
    size, rate = BUCKETS.get(action, READING)
    return (size * OUR_SHARE, rate * OUR_SHARE) if action in HALVED else (size, rate)
