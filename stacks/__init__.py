"""What exists in the cloud, declaratively; one stack a rate of change."""
