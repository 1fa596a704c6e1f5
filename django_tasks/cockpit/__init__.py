"""The admin's pages of what the site does: overview, queues, workers, task types, health."""
