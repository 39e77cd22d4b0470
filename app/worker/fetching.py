"""The picture of a job that names a URL: fetched once, checked as an upload is, kept for further attempts."""

import hashlib
from collections.abc import Callable

from app import imaging
from app.config import Settings
from app.registry import ImageFacts
from app.storage import Storage
from app.worker.download import download


def fetch_picture(  # noqa: PLR0913  # where from, where to, within which bounds
    url: str, *, job_id: str, path: str, storage: Storage, settings: Settings, report: Callable[[float], None]
) -> ImageFacts:
    """Have the picture at `path`, relative to the storage root. `report` is told how much has come, 0 to 1.

    Raises as `download` and `imaging.probe` do; then nothing is kept.
    """
    kept = storage.resolve(path)
    if kept.exists():  # an earlier attempt has fetched it
        info = imaging.probe(kept, max_pixels=settings.max_pixels)
    else:
        with storage.incoming(job_id, max_bytes=settings.max_file_size) as upload:
            download(url, into=upload, settings=settings, report=report)
            upload.finish()
            info = imaging.probe(upload.path, max_pixels=settings.max_pixels)
            upload.keep("")
    with kept.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ImageFacts(
        width=info.width, height=info.height, format=info.format, bytes=kept.stat().st_size, sha256=digest
    )
