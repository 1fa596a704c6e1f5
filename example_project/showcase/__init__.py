"""Runs the corner shop from start to end and shows what happens. The shop itself knows nothing of it."""
