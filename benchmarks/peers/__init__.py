"""The other task queues, each set up as its own documentation advises. They live in an environment of their own."""
