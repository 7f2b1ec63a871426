"""Exponential backoff as a value, for pure cores and for loops that wait. Standard library only.

A `Backoff` states the policy; a `Delay` is the state of one thing that is tried again. Both are
immutable, so a pure state machine can keep a `Delay` and a shell can sleep for `delay_s`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that grow by `factor` from `first_s` to at most `cap_s` seconds.

    `jitter` is the part of a delay, from 0 to 1, that `delay_s` scales by the caller's random
    number: 0.5 spreads a delay over its upper half.

    Raises:
        ValueError: a delay is negative, the cap is below the first delay, the factor is below 1, or
            the jitter is outside 0 to 1.

    """

    first_s: float
    cap_s: float
    factor: float = 2.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.first_s <= self.cap_s:
            raise ValueError(f"first_s {self.first_s} is not between 0 and cap_s {self.cap_s}")
        if self.factor < 1:
            raise ValueError(f"factor {self.factor} is below 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter {self.jitter} is not between 0 and 1")

    def delay_s(self, failures: int, fraction: float = 1.0) -> float:
        """Seconds to wait after that many failures in a row; 0 when there was none.

        `fraction` is a random number from 0 to 1 for the jitter; 1 gives the whole delay.
        """
        if failures <= 0:
            return 0.0
        delay = self.first_s
        for _ in range(min(failures - 1, _MOST_STEPS)):
            delay *= self.factor
            if delay >= self.cap_s:
                break
        return min(delay, self.cap_s) * (1 - self.jitter + self.jitter * fraction)


@dataclass(frozen=True, slots=True)
class Delay:
    """Time of the next attempt after failures. `until` has the origin of the caller's clock."""

    failures: int = 0
    until: float = 0.0

    def after_failure(self, policy: Backoff, now: float, fraction: float = 1.0) -> Delay:
        """The state after one more failure in a row at `now`."""
        failures = self.failures + 1
        return replace(self, failures=failures, until=now + policy.delay_s(failures, fraction))

    def after_success(self) -> Delay:
        """The state after a success: nothing delays the next try."""
        return Delay()

    def remaining_s(self, now: float) -> float:
        """Seconds until the next try; 0 when it may begin."""
        return max(0.0, self.until - now)


_MOST_STEPS = 1024  # more steps than any float can grow by doubling
