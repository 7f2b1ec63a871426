"""The autoscaler: a pure core (`planner.plan` and its packages) and a shell (`daemon`)."""
