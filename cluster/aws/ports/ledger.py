"""Port to the ledger: append-only rows in S3 that outlive the cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

Row = dict[str, Any]
"""A JSON object with at least `at` (epoch s) and `kind`; the other fields depend on the kind."""


class Ledger(Protocol):
    """The rows of one cluster."""

    def append(self, record: Mapping[str, object]) -> None:
        """Write one row; it is durable when this returns.

        Idempotent for a row with a `row` (its id), and for one with an `instance_id`, of which
        there is one per kind, machine and moment.

        Raises:
            CloudError: the row may or may not be written.

        """
        ...

    def append_many(self, records: Iterable[Mapping[str, object]]) -> None:
        """Write rows, as one object where hour and topic are equal; durable when this returns.

        Idempotent as `append`.

        Raises:
            CloudError: some rows may be written; those with a `row` may be written again.

        """
        ...

    def compact(self, now: float) -> int:
        """Merge small objects, which speeds up reading; return the number of merged objects.

        Idempotent; what `read` returns does not change.

        Raises:
            CloudError: no answer; the rest is merged by the next call.

        """
        ...

    def read(
        self, since: float = 0.0, limit: int | None = None, kinds: Collection[str] = ()
    ) -> list[Row]:
        """Return the rows with `at` >= `since`, oldest first.

        Only rows of `kinds`, if any are named; only the newest `limit` rows, if given. Each row is
        returned once even if rows are written and merged meanwhile, and has a `row`. Never stale:
        S3 is strongly consistent.

        Raises:
            NotFound: the bucket does not exist.
            Retryable: no answer, or the ledger was merged all the time.

        """
        ...
