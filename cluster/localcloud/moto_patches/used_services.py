"""Which services a call used, so that only those are saved after it.

Every call reaches moto's backends through `AccountSpecificBackend.__getitem__`.
"""

from __future__ import annotations

from moto.core.base_backend import AccountSpecificBackend


class UsedServices:
    """Names of the services whose backends were asked for. The caller holds the endpoint's lock."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._created: set[str] = set()

    def watch(self) -> None:
        """Patch moto in this process."""
        get_backend = AccountSpecificBackend.__getitem__

        def get_and_note(self_: AccountSpecificBackend, region: str) -> object:
            self._used.add(self_.service_name)
            if region not in self_.keys():  # noqa: SIM118 - moto's own __contains__ differs
                self._created.add(self_.service_name)
            return get_backend(self_, region)

        AccountSpecificBackend.__getitem__ = get_and_note

    @property
    def has_created(self) -> bool:
        """Whether a service has a new backend since the last `take`."""
        return bool(self._created)

    def take(self) -> set[str]:
        """The services used since the last `take`; starts anew."""
        names = self._used | self._created
        self.forget()
        self._created.clear()
        return names

    def forget(self) -> None:
        """Drop the services that were used, except those with a new backend."""
        self._used.clear()
