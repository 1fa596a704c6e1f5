"""What every broker promises: each sentence in the docstrings of :mod:`django_tasks.backends.base` is a test here.

A broker is held to it by a subclass that gives the fixture ``bench``: a real server, empty at the start of each test.
"""

from __future__ import annotations

from tests.backends.promises.claiming import Claiming
from tests.backends.promises.commands import Commanding, Showing
from tests.backends.promises.control import Cancelling, Finding, Tidying, Watching
from tests.backends.promises.finishing import Finishing, Returning
from tests.backends.promises.leasing import Leasing, Slots
from tests.backends.promises.limiting import Limiting
from tests.backends.promises.rescheduling import Rescheduling
from tests.backends.promises.sending import Sending
from tests.backends.promises.uniqueness import Uniqueness
from tests.backends.promises.workflows import Workflows


class BrokerContract(
    Sending,
    Claiming,
    Finishing,
    Returning,
    Leasing,
    Slots,
    Watching,
    Cancelling,
    Finding,
    Rescheduling,
    Tidying,
    Commanding,
    Showing,
    Limiting,
    Uniqueness,
    Workflows,
):
    """The whole contract."""
