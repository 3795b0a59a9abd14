"""A run around the method: its model and its output folder."""
