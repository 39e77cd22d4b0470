"""JPEGs in colour, decoded straight to bytes.

The code is libjpeg-turbo's, as Pillow's is, and so are the pixels; what Pillow takes longer for, by a third, is to have
them row by row and to copy each into a picture of its own.
"""

import numpy as np
import simplejpeg


def decoded(content: bytes, size: tuple[int, int]) -> np.ndarray | None:
    """The picture, uint8 of shape [height, width, 3]; None for one that is not quite sound, which Pillow may yet read.

    `content` is one whose outline is plain: of a frame without loss, which there is no halving of, all would be written
    to an array of half the size.
    `size`, width and height in pixels, is that in the file, or what halving that makes of it, once, twice or thrice.
    """
    width, height = size
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(content, "RGB", min_height=height, min_width=width)
    except ValueError:
        return None
    return pixels if pixels.shape == (height, width, 3) else None
