"""Count of the exceptions that no code foresaw, by port, for the metrics of this process."""

from __future__ import annotations

from collections import Counter

METRIC = "mesaform_unhandled_errors_total"
HELP = "Requests that ended with an exception that no code foresaw."


class Unhandled:
    """Unhandled errors of this process by the port's name."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def add(self, port: str) -> None:
        """Count an error of a port."""
        self._count[port] += 1

    def register(self, port: str) -> None:
        """Show a port without errors, too: a metric that appears late cannot be watched."""
        self._count[port] += 0

    def by_port(self) -> dict[str, int]:
        """The count of each registered port."""
        return dict(self._count)

    def clear(self) -> None:
        """Forget the errors; for tests that cause one on purpose."""
        for port in self._count:
            self._count[port] = 0

    def prometheus(self) -> str:
        """The metric in Prometheus' text format."""
        lines = [f"# HELP {METRIC} {HELP}", f"# TYPE {METRIC} counter"]
        lines += [
            f'{METRIC}{{port="{port}"}} {count}' for port, count in sorted(self._count.items())
        ]
        return "\n".join(lines) + "\n"

    def snapshot(self) -> dict[str, float]:
        """The metric under keys such as Mesos' `/metrics/snapshot` has them."""
        return {f"{METRIC}/{port}": float(count) for port, count in sorted(self._count.items())}


UNHANDLED = Unhandled()
"""The errors of this process. Like its log, a process has one."""
