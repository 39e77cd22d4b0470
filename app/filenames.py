"""What clients call their files: shown to them, never used as a path."""

_MAX_LENGTH = 255


def display_name(path: str) -> str | None:
    """The last part of a path, without control characters; None when there is nothing left."""
    name = path.replace("\\", "/").rpartition("/")[2]
    if not name.isprintable():
        name = "".join(character for character in name if character.isprintable())
    return name[:_MAX_LENGTH] or None
