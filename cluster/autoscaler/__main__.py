"""`python -m cluster.autoscaler`."""

import asyncio

from cluster.zz_daemon import main

asyncio.run(main())
