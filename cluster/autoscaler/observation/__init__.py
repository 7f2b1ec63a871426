"""Reading the world: the engine, the queues, the cloud; and the probe that asks for offers where they are silent."""
