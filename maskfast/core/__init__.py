"""Floor 0: errors, configuration and the one image loader; imports nothing else of maskfast."""
