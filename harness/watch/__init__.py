"""Runs a user's program, as a call or as a child process, and records what it did."""
