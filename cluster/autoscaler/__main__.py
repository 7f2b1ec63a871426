"""`python -m cluster.autoscaler`."""

import asyncio

from cluster.autoscaler.daemon.daemon import main

asyncio.run(main())
