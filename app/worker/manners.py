"""How a process that runs models behaves beside the others."""

import gc
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

#: With it, a process has about a tenth of the time of one without, where both want all of a core.
_NICENESS = 10
#: The lowest there is: submissions are to wait for nothing but each other.
_NICENESS_OF_SESSION = 19
#: Of the session that this process belongs to (sched(7), "The autogroup feature").
_AUTOGROUP = Path("/proc/self/autogroup")


def give_way() -> None:
    """Let the API and the main process go first, where the platform knows how. Threads made after it inherit it."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)


def give_way_as_session(autogroup: Path = _AUTOGROUP) -> None:
    """Have the worker give way to others if it is a session of its own, as one that was started as a service is.

    Linux may share out the processors by session, and then niceness counts only among the processes of each.
    """
    if os.getsid(0) != os.getpid() or not autogroup.exists():
        return
    try:
        autogroup.write_text(str(_NICENESS_OF_SESSION))
    except OSError as error:  # some other session has just been changed, or it is not ours to change
        logger.info("the worker's session does not give way: %s", error)


def settle() -> None:
    """Have the garbage collector pass over what is here to stay: it would look through all of it again and again."""
    gc.collect()
    gc.freeze()
