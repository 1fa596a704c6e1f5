"""The database as broker: the to-do list is the queue, the row is the message.

``broker`` holds the verbs, ``engine`` the private connection, ``dialect`` what databases spell differently, ``plan``
the order
of claims, ``wakers`` how an idle worker hears of new work.
"""

from .broker import DatabaseBroker

__all__ = ["DatabaseBroker"]
