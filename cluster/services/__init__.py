"""Marathon's REST API: apps kept running as tasks of one Mesos framework, as Marathon 1.11 does."""
