"""Corrections of moto where its answers differ from AWS in ways that matter, one module a subject.

`apply` applies them all, once in a process; `catalogue.prepare` must have run before moto was
imported.
"""

from __future__ import annotations

from collections.abc import Callable


def apply(on_new_image: Callable[[str], None]) -> None:
    """Patch moto in this process. `on_new_image` gets the id of each base image."""
    from mesaform.localcloud.moto_patches import (
        account,
        catalogue,
        events,
        fleet,
        listings,
        network,
        network_options,
        profiles,
        queues,
        requests,
        reservations,
        states,
        templates,
        volumes,
    )

    account.apply()
    network.apply()
    network_options.apply()
    profiles.apply()
    reservations.apply()
    states.apply()
    requests.apply()
    queues.apply()
    templates.apply()
    volumes.apply()
    fleet.apply()
    events.apply()
    catalogue.apply(on_new_image)
    listings.apply()
    fleet.Prices.usd_per_hour = catalogue.usd_per_hour
