"""Django's command line in a process that lacks what systems other than POSIX lack.

``python -m tests.integration.without_posix runworker``. What stands in for such a system leaves out fork, process
groups, most signals and timers, and the modules about them; sockets and files stay as they are.
"""

from __future__ import annotations

import asyncio  # noqa: F401 - what chose its ways by the system has to be there before
import faulthandler
import http.server  # noqa: F401
import logging.handlers  # noqa: F401
import os
import select
import signal
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
from types import ModuleType

import tests.settings  # noqa: F401
from tests.manage import main

MISSING: dict[ModuleType, str] = {
    os: "fork forkpty killpg setpgid getpgid getpgrp setsid getsid geteuid getgid getegid uname sysconf waitid wait3"
    " wait4 WNOHANG WUNTRACED WCONTINUED WEXITED WSTOPPED WNOWAIT WIFSTOPPED WIFCONTINUED P_PID sched_getaffinity"
    " posix_spawn register_at_fork mkfifo chown",
    signal: "SIGUSR1 SIGUSR2 SIGALRM SIGHUP SIGQUIT SIGCHLD SIGKILL SIGSTOP SIGCONT SIGTSTP SIGPIPE setitimer getitimer"
    " ITIMER_REAL alarm pause pthread_sigmask pthread_kill sigwait siginterrupt",
    select: "poll epoll kqueue",
    faulthandler: "register",
}
MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog")


def leave_out() -> None:
    """From here on this process lacks them."""
    for module, names in MISSING.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # how the import system says that there is none


if __name__ == "__main__":
    leave_out()
    main()
