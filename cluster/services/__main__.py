"""`python -m mesaform.services`: one server of Marathon's REST API.

`mesaform.services.settings` reads its environment variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys

from mesaform.common.errors import MesaformError
from mesaform.common.logs import configure_logging
from mesaform.services.server import serve
from mesaform.services.settings import Settings


async def _run() -> None:
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if main is not None:
            loop.add_signal_handler(number, main.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serve(Settings.from_environment(os.environ))


def main() -> int:
    """Run until SIGTERM; an error is printed to standard error, its exit code is returned."""
    configure_logging()
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    try:
        asyncio.run(_run())
    except MesaformError as error:
        sys.stderr.write(f"services: {error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
