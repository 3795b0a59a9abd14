"""What a run needs around the method: its model and its output folder."""
