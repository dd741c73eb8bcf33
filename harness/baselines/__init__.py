"""Stored baselines: reading, comparing and accepting them."""
