"""The cluster file: schema, parser with positions, calendar, sample."""
