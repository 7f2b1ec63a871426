"""ZooKeeper for asyncio: a session, elections and leader watches over kazoo."""
