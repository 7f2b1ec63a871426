"""EC2's request limits on the client's side: token buckets with EC2's published sizes.

After a refusal an action pauses and then continues at a lower rate. Nothing waits here: a call that
exceeds a limit raises `Retryable` with the time after which to repeat it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from mesaform.aws.errors import Fault, classify, error_code, translate_errors
from mesaform.common.backoff import Backoff, Delay
from mesaform.common.errors import Retryable

ACCOUNT_SHARE = 0.5
"""Share of the account's limits on launches and terminations that this process uses."""

MACHINES = "machines"
"""Bucket of launched machines. It is not shared: bursts that need all of it are rare."""

READ_LIMIT = (100.0, 20.0)
LIMITS: Mapping[str, tuple[float, float]] = {
    "CreateFleet": (50.0, 5.0),
    "TerminateInstances": (100.0, 5.0),
    MACHINES: (1000.0, 2.0),
}
"""Size of a bucket and refill per second, by action; other actions have `READ_LIMIT`.

Source: EC2 developer guide, "Request throttling for the Amazon EC2 API".
"""

SHARED = frozenset({"CreateFleet", "TerminateInstances"})

MIN_RATE = 1 / 16
"""Refusals lower an action's rate at most to this part of it."""

RATE_STEP = 0.1
"""Each success restores this part of the rate."""

PAUSE = Backoff(first_s=2.0, cap_s=60.0)
"""Pause of an action after refusals in a row."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens of one action at the time `at`.

    `rate_part` is the part of the rate that refusals left; `pause` counts refusals in a row.
    """

    tokens: float
    at: float
    rate_part: float = 1.0
    pause: Delay = field(default_factory=Delay)

    def refill(self, size: float, rate: float, now: float) -> Bucket:
        """Add the tokens of the time since `at`."""
        gained = (now - self.at) * rate * self.rate_part
        return replace(self, tokens=min(size, self.tokens + gained), at=now)

    def wait_s(self, cost: float, rate: float, now: float) -> float:
        """Seconds until `cost` tokens may be taken; 0 if they may be taken now."""
        refill_s = max(0.0, cost - self.tokens) / (rate * self.rate_part)
        return max(refill_s, self.pause.remaining_s(now))

    def after_refusal(self, now: float) -> Bucket:
        """Empty the bucket, halve its rate and pause."""
        return replace(
            self,
            tokens=0.0,
            at=now,
            rate_part=max(MIN_RATE, self.rate_part / 2),
            pause=self.pause.after_failure(PAUSE, now),
        )

    def after_success(self) -> Bucket:
        """Restore a part of the rate."""
        return replace(
            self,
            rate_part=min(1.0, self.rate_part + RATE_STEP),
            pause=self.pause.after_success(),
        )


class RateLimiter:
    """The buckets of one region, shared by all callers. Safe to use from several threads.

    Args:
        clock: seconds with any origin.

    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, Bucket] = {}

    @contextmanager
    def limit(self, action: str, machines: int = 0) -> Iterator[None]:
        """Make EC2 calls of one action in the block, with translated errors.

        `machines` is how many machines the call launches.

        Raises:
            Retryable: a bucket is empty (no call was made), or EC2 refused, which lowers the rate.
            CloudError: see `aws.errors.translate_errors`.

        """
        self._take(action, machines)
        try:
            with translate_errors(f"ec2 {action}"):
                yield
        except Retryable as error:
            if classify(error_code(error.__cause__)) is Fault.THROTTLED:
                after_s = self._slow_down(action)
                raise Retryable(error.what, after_s=after_s, where=error.where) from error
            raise
        with self._lock:
            self._buckets[action] = self._bucket(action).after_success()

    def _take(self, action: str, machines: int) -> None:
        costs = {action: 1.0}
        if machines:
            costs[MACHINES] = float(machines)
        with self._lock:
            wait_s = max(self._wait_s(name, cost) for name, cost in costs.items())
            if wait_s > 0:
                raise Retryable(
                    "the call was not made: it exceeds EC2's request limit",
                    after_s=round(wait_s, 1),
                    where=f"ec2 {action}",
                )
            for name, cost in costs.items():
                bucket = self._bucket(name)
                self._buckets[name] = replace(bucket, tokens=bucket.tokens - cost)

    def _wait_s(self, name: str, cost: float) -> float:
        size, rate = _limit_of(name)
        return self._bucket(name).wait_s(min(cost, size), rate, self._clock())

    def _slow_down(self, action: str) -> float:
        """Note a refusal; return the seconds after which to call again."""
        with self._lock:
            now = self._clock()
            bucket = self._buckets[action] = self._bucket(action).after_refusal(now)
            return bucket.pause.remaining_s(now)

    def _bucket(self, name: str) -> Bucket:
        size, rate = _limit_of(name)
        now = self._clock()
        return self._buckets.get(name, Bucket(size, now)).refill(size, rate, now)


def _limit_of(name: str) -> tuple[float, float]:
    size, rate = LIMITS.get(name, READ_LIMIT)
    return (size * ACCOUNT_SHARE, rate * ACCOUNT_SHARE) if name in SHARED else (size, rate)
