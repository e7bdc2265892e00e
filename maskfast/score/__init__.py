"""Floor 3: from a bundle and pictures to probabilities, and from probabilities to metrics and reports."""
