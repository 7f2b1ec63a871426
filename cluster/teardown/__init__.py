"""Taking a cluster down: inventory, order, plan (pure), execution and the receipt."""
