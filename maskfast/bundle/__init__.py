"""Floor 2: the artefact of training: its format, its network, and readers that run nothing of what they read."""
