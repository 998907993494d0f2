"""The prune room."""
