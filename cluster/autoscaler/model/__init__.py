"""Values of the autoscaler: what a pass sees, decides and remembers. Pure."""
