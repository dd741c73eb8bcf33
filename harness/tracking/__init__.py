"""The history of many sessions and machines, kept by MLflow tracking."""
