"""The Redis broker: messages and leases in Redis or Valkey, tasks and results in the site's own database.

Imports nothing of redis-py until a connection is wanted.
"""

from __future__ import annotations

from .broker import RedisBroker

__all__ = ["RedisBroker"]
