"""Training pictures for whole scenes: drawn from annotated faces and plain pictures, in both classes equally often."""
