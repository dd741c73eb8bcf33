"""Profiler captures: gated, short, capped in size and number."""
