"""The autoscaler: a pure core (`planner.plan` and what it uses) and a shell that reads the world and acts on it."""
