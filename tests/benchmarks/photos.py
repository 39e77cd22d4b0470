"""Photos of three sizes, and the same photo again and again without one byte sequence being sent twice.

A JPEG may carry comments (JPEG, ITU-T T.81, B.2.4.5). One of 16 bytes behind its first marker is different in every
request, so that no two are equal to anybody who compares bytes, and all are equal to whoever looks at them.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.processes import PHOTOS

_START = b"\xff\xd8"
MARK_BYTES = 16
_COMMENT = b"\xff\xfe" + (MARK_BYTES + 2).to_bytes(2, "big")
#: Width and height in pixels of what is made of the photo, by name.
_MADE = {"2 MP": (1632, 1224), "12 MP": (4000, 3000)}


@dataclass(frozen=True)
class Photo:
    """A photo on disk."""

    name: str
    path: Path
    width: int
    height: int

    @property
    def title(self) -> str:
        """Name and size, for people."""
        return f"{self.name}, {self.width} by {self.height}, {self.path.stat().st_size / 1e6:.2f} MB"


def photos(folder: Path) -> list[Photo]:
    """dog.jpg as it is, and larger ones made of it in `folder`: beside and below each other, as sharp as the one."""
    source = PHOTOS / "dog.jpg"
    with Image.open(source) as dog:
        found = [Photo("dog.jpg", source, *dog.size)]
        for name, size in _MADE.items():
            made = Image.new("RGB", size)
            for place in itertools.product(range(0, size[0], dog.width), range(0, size[1], dog.height)):
                made.paste(dog, place)
            path = folder / f"{name.replace(' ', '-')}.jpg"
            made.save(path, "JPEG", quality=85)
            found.append(Photo(name, path, *size))
    return found


def split_for_marks(jpeg: bytes) -> tuple[bytes, bytes]:
    """What comes before a mark and what comes after it; with one between them the three are a JPEG again."""
    if not jpeg.startswith(_START):
        raise ValueError("this is no JPEG")
    return _START + _COMMENT, jpeg[len(_START) :]


def marks() -> Iterator[bytes]:
    """Marks, none of which any other process has."""
    ours = os.urandom(MARK_BYTES // 2)
    return (ours + number.to_bytes(MARK_BYTES // 2, "big") for number in itertools.count())
