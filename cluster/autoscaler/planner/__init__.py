"""One pass as a pure function: `plan(snapshot, now)`."""
