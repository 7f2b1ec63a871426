"""The node-level autoscaler: demand, catalogue, packing, scale-up, scale-down (pure) and its daemon."""
