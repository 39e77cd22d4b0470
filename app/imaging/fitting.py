"""How large a picture becomes, and what of it is shown."""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from PIL import Image

Size = tuple[int, int]


class Fit(StrEnum):
    """How a picture of one shape fills a box of another."""

    #: As large as the box holds; the aspect is kept, nothing is cut off.
    INSIDE = "inside"
    #: The box exactly; the aspect is kept, what stands over is cut off on both sides alike.
    COVER = "cover"
    #: The box exactly; all of the picture, stretched.
    FILL = "fill"


@dataclass(frozen=True)
class Fitting:
    """The part of a picture that is shown, and the size it is shown in."""

    #: Width and height of the picture, in pixels.
    source: Size
    #: Width and height of the part, centred in the picture; fractions of pixels count.
    part: tuple[float, float]
    #: Width and height of the outcome, in pixels.
    size: Size

    @property
    def least_source(self) -> Size:
        """How large the picture must be, width and height, to be resized without loss that shows.

        Twice what is needed, so that the last step to the size is still one of a good filter.
        """
        (width, height), (part_width, part_height) = self.source, self.part
        return ceil(2 * width * self.size[0] / part_width), ceil(2 * height * self.size[1] / part_height)

    def apply(self, picture: Image.Image) -> Image.Image:
        """The outcome; the picture itself, if there is nothing to do.

        `picture` has the source's aspect, but may be smaller. Transparent pixels lend no colour to their neighbours.
        """
        x_scale, y_scale = picture.width / self.source[0], picture.height / self.source[1]
        width, height = self.part[0] * x_scale, self.part[1] * y_scale
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        box = (max(0.0, left), max(0.0, top), min(picture.width, left + width), min(picture.height, top + height))
        if self.size == picture.size == (width, height):
            return picture
        return picture.resize(self.size, Image.Resampling.LANCZOS, box=box, reducing_gap=_REDUCING_GAP)


#: Large pictures are first averaged down to this many times the size, which is faster and cannot be seen.
_REDUCING_GAP = 3.0


def fitting(source: Size, *, width: int | None, height: int | None, fit: Fit, enlarge: bool) -> Fitting:
    """Fit a picture of the size `source` into a box; where one of its sides is None, that follows the aspect.

    Unless `enlarge`, no pixel is made up: a box too large for the picture is replaced by the largest of the same aspect
    that is not.
    """
    if width is None or height is None or fit is Fit.INSIDE:
        return Fitting(source, source, _inside(source, width, height, enlarge=enlarge))
    size = (width, height) if enlarge else _shrunk((width, height), source)
    if fit is Fit.FILL:
        return Fitting(source, source, size)
    # Of the aspect that was asked for, which is that of `size` before rounding.
    part = min(source[0], source[1] * width / height), min(source[1], source[0] * height / width)
    return Fitting(source, part, size)


def _inside(source: Size, width: int | None, height: int | None, *, enlarge: bool) -> Size:
    """The source's aspect, as large as the box holds."""
    limits = [(asked, side) for asked, side in zip((width, height), source, strict=True) if asked is not None]
    # A fraction, for a quotient of floats can miss a whole number by a hair.
    numerator, denominator = min(limits, key=lambda limit: limit[0] / limit[1])
    if numerator >= denominator and not enlarge:
        return source
    return _scaled(source, numerator, denominator)


def _shrunk(box: Size, source: Size) -> Size:
    """The box's aspect, no side of it longer than the source's."""
    denominator, numerator = max(zip(box, source, strict=True), key=lambda sides: sides[0] / sides[1])
    return box if numerator >= denominator else _scaled(box, numerator, denominator)


def _scaled(size: Size, numerator: int, denominator: int) -> Size:
    """Rounded half up, and never nothing."""
    width, height = (max(1, (2 * side * numerator + denominator) // (2 * denominator)) for side in size)
    return width, height
