"""`transform` as a client sees it, with a real worker: post, download the files, erase them."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from tests.pictures import encoded
from tests.processes import PHOTOS, installation


def with_camera_tags(photo: Path) -> bytes:
    exif = Image.Exif()
    exif[271], exif[272] = "Maker of cameras", "Model 9"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})
    with Image.open(photo) as image:
        return encoded(image, "PNG", exif=exif)


def test_a_photo_and_its_thumbnail_are_made_downloaded_and_erased(tmp_path: Path) -> None:
    with installation(tmp_path, WORKER_TASKS="transform") as service:
        service.start_api("app.api")
        service.start_worker("app.worker.main")
        service.wait_until_ready()
        photo = with_camera_tags(PHOTOS / "coffee.png")

        job_id = service.submit("transform", photo, width=320, format="webp", thumbnail=64)
        result: Any = service.result(job_id)

        assert result["model"]["name"] == "pillow"
        sizes = {artifact["name"]: (artifact["width"], artifact["height"]) for artifact in result["artifacts"]}
        assert sizes == {"image.webp": (320, 213), "thumbnail.webp": (64, 43)}
        for artifact in result["artifacts"]:
            answer = service.http.get(artifact["url"])
            assert answer.headers["content-type"] == artifact["content_type"] == "image/webp"
            assert len(answer.content) == artifact["bytes"]
            part = service.http.get(artifact["url"], headers={"Range": "bytes=0-11"})
            assert (part.status_code, part.content) == (206, answer.content[:12])
            with Image.open(io.BytesIO(answer.content)) as image:
                assert (image.format, image.size) == ("WEBP", sizes[artifact["name"]])
                assert dict(image.getexif()) == {}

        assert service.http.delete(f"/jobs/{job_id}").status_code == 204
        assert {service.http.get(artifact["url"]).status_code for artifact in result["artifacts"]} == {410}
