"""EC2 as it was some seconds ago, for the fault `lag`: what Describe calls see while the API lags behind.

States are kept as pickles while a lag is in force, and one beyond, so that answers are truly old ones and not delayed ones.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class History:
    """The last states of EC2. Callers hold the endpoint's lock."""

    def __init__(
        self, backends: Any, encode: Callable[[Any], bytes], lag_s: Callable[[], float]
    ) -> None:
        self._backends = backends
        self._encode = encode
        self._lag_s = lag_s
        self._states: deque[tuple[float, bytes]] = deque()

    def begin(self) -> None:
        """A lag was put in force: the present is the oldest state that will be asked for."""
        self._states.clear()
        self._states.append((0.0, self._encode(self._backends)))

    def note(self) -> None:
        """Something changed."""
        lag = self._lag_s()
        if not lag:
            self._states.clear()
            return
        now = time.time()
        self._states.append((now, self._encode(self._backends)))
        while len(self._states) > 1 and self._states[1][0] <= now - lag:
            self._states.popleft()

    @contextmanager
    def as_of(self, moment: float) -> Iterator[None]:
        """Let moto answer from the state at `moment` (seconds since the epoch)."""
        state = next((data for at, data in reversed(self._states) if at <= moment), None)
        if state is None:
            yield
            return
        _, _, content = pickle.loads(state)  # noqa: S301
        present = {
            (account, region): backend
            for account, regions in self._backends.items()
            for region, backend in regions.items()
        }
        try:
            for account, regions in content.items():
                for region, backend in regions.items():
                    dict.__setitem__(self._backends[account], region, backend)
            yield
        finally:
            for (account, region), backend in present.items():
                dict.__setitem__(self._backends[account], region, backend)
