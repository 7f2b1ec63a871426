"""A world of discrete events that drives the real planner, and rivals' published rules, over traces of work."""
