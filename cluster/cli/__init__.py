"""The `mesaform` program: one file a verb; the work is done elsewhere."""
