"""`python -m mesaform.autoscaler`."""

import asyncio

from mesaform.autoscaler.daemon.daemon import main

asyncio.run(main())
