"""`transform`: a picture in another size, shape or format, and a thumbnail of it.

The picture is decoded no larger than it is needed, resized, brought to sRGB and encoded. Both files are made from the
upload, so the thumbnail shows all of it, whatever was cut off the picture.

Pillow does it. On a photo of 12 megapixels libvips was measured to be 1.2 to 1.7 times as fast, 25 ms a job, for twice
the memory and with decoders of its own, which `app.imaging` does not guard.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import PIL
from PIL import Image
from pydantic import Field, ValidationInfo, model_validator

from app import imaging
from app.config import Settings
from app.imaging.encoding import KINDS, Format, check_size, encode
from app.imaging.exif import upright_exif
from app.imaging.fitting import Fit, Fitting, fitting
from app.imaging.metadata import Metadata
from app.imaging.profile import kept_profile, to_srgb
from app.schemas import ModelInfo
from app.tasks.base import Answer, Attempt, Loader, Options, Part, Task

_DEFAULT_WIDTH = 800

Side = Annotated[int, Field(ge=1, le=16_384)]


class TransformOptions(Options):
    """What the picture is to become."""

    width: Annotated[
        Side | None, Field(description="Pixels. Follows `height`, or is 800, if not given; never enlarges by itself.")
    ] = None
    height: Annotated[Side | None, Field(description="Pixels. Follows `width`, and the picture's aspect.")] = None
    fit: Annotated[
        Fit,
        Field(
            description="With both `width` and `height`: `inside` keeps all, `cover` cuts to fill, `fill` stretches."
        ),
    ] = Fit.INSIDE
    format: Annotated[
        Format | None,
        Field(description="That of the upload if not given; PNG for one of GIF, BMP or TIFF."),
    ] = None
    quality: Annotated[int, Field(ge=1, le=100, description="Of JPEG, WebP and AVIF; PNG loses nothing.")] = 80
    thumbnail: Annotated[
        int, Field(ge=0, le=1024, description="Side of the square that the thumbnail fits inside, pixels; 0 for none.")
    ] = 150
    strip_metadata: Annotated[
        bool, Field(description="Leave out EXIF, XMP and the colour profile; colours are then made sRGB.")
    ] = True
    enlarge: Annotated[bool, Field(description="Make up pixels for a size larger than the upload's.")] = False

    @model_validator(mode="after")
    def _can_be_made(self, info: ValidationInfo) -> Self:
        settings: Settings | None = info.context
        exact = self.fit is not Fit.INSIDE or self.width is None or self.height is None
        # Otherwise the size depends on the upload, and the worker will see; as does the format, if none is asked for,
        # of which PNG holds most.
        if settings and self.enlarge and exact:
            format_ = self.format or Format.PNG
            check_size(self.width or 1, self.height or 1, format_, max_pixels=settings.max_pixels)
        return self


class Artifact(Part):
    """A file that was made."""

    name: str
    url: str = Field(description="Where to fetch it, relative to the service.")
    content_type: str
    bytes: int
    width: int
    height: int


class TransformAnswer(Answer):
    """The picture, then the thumbnail if there is one."""

    artifacts: list[Artifact]


class Pillow:
    """There is no network to load: the library does the work."""

    info = ModelInfo(name="pillow", revision=PIL.__version__, runtime="pillow", device="cpu")
    labels: ClassVar[Mapping[int, str]] = {}


@dataclass(frozen=True)
class _Plan:
    """An upload, and what is to be made of it."""

    original: imaging.Original
    format: Format
    picture: Fitting
    thumbnail: Fitting | None


@dataclass(frozen=True)
class _Part:
    """A picture ready to be written."""

    name: str
    picture: Image.Image
    format: Format
    metadata: Metadata


class Transform(Task[Pillow]):
    """Resizing and encoding by Pillow."""

    name = "transform"
    summary = "Resize a picture, change its format, make a thumbnail."
    options = TransformOptions
    answer = TransformAnswer
    shareable = False
    example: ClassVar[dict[str, Any]] = {
        "artifacts": [
            {
                "name": "image.webp",
                "url": "/files/0f8fad5b-d9cb-469f-a165-70867728950e/image.webp",
                "content_type": "image/webp",
                "bytes": 13_334,
                "width": 320,
                "height": 213,
            },
            {
                "name": "thumbnail.webp",
                "url": "/files/0f8fad5b-d9cb-469f-a165-70867728950e/thumbnail.webp",
                "content_type": "image/webp",
                "bytes": 1_082,
                "width": 64,
                "height": 43,
            },
        ]
    }

    def models(self, settings: Settings) -> tuple[str, ...]:
        """The library."""
        return (Pillow.info.name,)

    def load(self, loader: Loader, model: str) -> Pillow:
        """Nothing to be loaded."""
        return Pillow()

    def decode(self, path: Path, model: Pillow, options: TransformOptions, *, max_pixels: int) -> _Plan:
        """The picture, as large as it is needed. Raises `InvalidOption` as well for a size that cannot be made."""
        info = imaging.probe(path, max_pixels=max_pixels)
        format_ = options.format or (Format(info.format) if info.format in set(Format) else Format.PNG)
        size, side = (info.width, info.height), options.thumbnail
        no_size = options.width is None and options.height is None
        picture = fitting(
            size,
            width=_DEFAULT_WIDTH if no_size else options.width,
            height=options.height,
            fit=options.fit,
            enlarge=options.enlarge,
        )
        thumbnail = fitting(size, width=side, height=side, fit=Fit.INSIDE, enlarge=False) if side else None
        check_size(*picture.size, format_, max_pixels=max_pixels)
        needed = [each.least_source for each in (picture, thumbnail) if each]
        least = max(width for width, _ in needed), max(height for _, height in needed)
        original = imaging.open_original(path, max_pixels=max_pixels, least_size=least)
        return _Plan(original, format_, picture, thumbnail)

    def preprocess(self, image: _Plan, model: Pillow, options: TransformOptions) -> list[_Part]:
        """The picture and the thumbnail, resized, in the colours they are stored with."""
        metadata, extension = image.original.metadata, imaging.EXTENSIONS[image.format]
        picture = image.picture.apply(image.original.image)
        kept = Metadata() if options.strip_metadata else _kept(metadata, picture)
        if not kept.profile:
            picture = to_srgb(picture, metadata.profile)
        parts = [_Part(f"image{extension}", picture, image.format, kept)]
        if image.thumbnail:
            small = to_srgb(image.thumbnail.apply(image.original.image), metadata.profile)
            parts.append(_Part(f"thumbnail{extension}", small, image.format, Metadata()))
        return parts

    def predict(
        self, inputs: list[_Part], model: Pillow, options: TransformOptions, attempt: Attempt
    ) -> list[Artifact]:
        """Encode and store them. Raises `ModelError` when an encoder fails."""
        artifacts = []
        for number, part in enumerate(inputs, start=1):
            artifacts.append(_stored(part, options.quality, attempt))
            attempt.report(number / len(inputs))
        return artifacts

    def postprocess(self, outputs: list[Artifact], model: Pillow, options: TransformOptions) -> TransformAnswer:
        """The list of what was stored."""
        return TransformAnswer(artifacts=outputs)


def _kept(metadata: Metadata, picture: Image.Image) -> Metadata:
    return Metadata(
        profile=kept_profile(metadata.profile, picture.mode),
        exif=upright_exif(metadata.exif, width=picture.width, height=picture.height),
        xmp=metadata.xmp,
    )


def _stored(part: _Part, quality: int, attempt: Attempt) -> Artifact:
    write = partial(encode, part.picture, format_=part.format, quality=quality, metadata=part.metadata)
    file = attempt.store(part.name, write)
    return Artifact(
        name=file.name,
        url=file.url,
        content_type=KINDS[part.format].content_type,
        bytes=file.bytes,
        width=part.picture.width,
        height=part.picture.height,
    )
