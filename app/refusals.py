"""How Redis says that it is there and cannot write: a failure that passes, as its absence does."""

#: Replies with which Redis refuses to write: full disk, full memory, a replica, too few replicas. redis-py has classes
#: for some of them, whose messages lack the word; in the reply to a script it stands in the middle.
_REFUSALS = ("MISCONF", "OOM", "READONLY", "NOREPLICAS")
_REFUSAL_CLASSES = frozenset({"OutOfMemoryError", "ReadOnlyError"})


def refuses_writes(error: Exception) -> bool:
    """Whether an error of the Redis client is a refusal that will pass, and no fault of the command."""
    return type(error).__name__ in _REFUSAL_CLASSES or any(word in str(error) for word in _REFUSALS)
