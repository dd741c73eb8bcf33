"""What was seen of a training, as plain data: no torch, no pytest, pandas only in `frames`."""
