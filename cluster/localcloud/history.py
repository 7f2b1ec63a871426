"""EC2 as it was some seconds ago, for the fault `lag`.

While a lag is in force, and for one state beyond it, EC2's state is kept as records, so that an
answer is a true old one and not a delayed one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from mesaform.localcloud.service_records import ServiceCodec
from mesaform.localcloud.state_store import put_backends


class History:
    """The last states of EC2. The caller holds the endpoint's lock."""

    def __init__(
        self,
        backends: Mapping[str, dict[str, object]],
        codec: ServiceCodec,
        lag_s: Callable[[], float],
    ) -> None:
        self._backends = backends
        self._codec = codec
        self._lag_s = lag_s
        self._states: deque[tuple[float, bytes]] = deque()

    def begin(self) -> None:
        """Start with the present state, because a lag is now in force."""
        self._states.clear()
        self._states.append((0.0, self._codec.encode(self._backends)))

    def note(self) -> None:
        """Keep the present state, because it changed."""
        lag_s = self._lag_s()
        if not lag_s:
            self._states.clear()
            return
        now = time.time()
        self._states.append((now, self._codec.encode(self._backends)))
        while len(self._states) > 1 and self._states[1][0] <= now - lag_s:
            self._states.popleft()

    @contextmanager
    def as_of(self, moment: float) -> Iterator[None]:
        """Let moto answer from the state at `moment` (seconds since the epoch)."""
        state = next((data for at, data in reversed(self._states) if at <= moment), None)
        if state is None:
            yield
            return
        present = {account: dict(regions.items()) for account, regions in self._backends.items()}
        try:
            put_backends(self._backends, self._codec.decode(state))
            yield
        finally:
            put_backends(self._backends, present)
