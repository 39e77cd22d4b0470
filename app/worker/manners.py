"""How a process that runs models behaves beside the others."""

import gc
import os

#: With it, a process has about a third of the time of one without, where both want all of a core.
_NICENESS = 5


def give_way() -> None:
    """Let the API and the main process go first, where the platform knows how. Threads made after it inherit it."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)


def settle() -> None:
    """Have the garbage collector pass over what is here to stay: it would look through all of it again and again."""
    gc.collect()
    gc.freeze()
