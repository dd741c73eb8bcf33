"""What must hold within one run: pure functions from a record to findings."""
