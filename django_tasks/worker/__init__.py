"""The worker: a supervisor that watches, a steward that keeps the lease, and children that pull and run tasks.

``supervisor`` holds processes and signals, ``steward`` everything that talks to the broker on the worker's behalf,
``child`` the loop that runs tasks, ``slots`` the shared memory through which the supervisor sees it.
"""
