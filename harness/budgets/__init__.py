"""Time, throughput, memory and final loss: measured, judged, told."""
