"""The autoscaler process: election, passes, execution of plans, journal, lease."""
