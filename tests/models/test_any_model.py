"""Other networks than the shipped one: tiny, random, saved to a folder as a hub model is."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from app import keys
from app.imaging import Picture
from app.worker.networks import ImageNetwork
from app.worker.sources import fetch
from tests.models.settings import settings_for
from tests.pictures import png
from tests.processes import installation, wait_for


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-vit"
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        id2label={0: "left", 1: "right"},
        label2id={"left": 0, "right": 1},
    )
    network: Any = ViTForImageClassification(config)
    network.save_pretrained(folder)
    processor: Any = ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return folder


def network_of(folder: Path, **settings: str) -> ImageNetwork:
    chosen = settings_for(**{"runtime": "torch", **settings})
    return ImageNetwork(fetch(str(folder), token=None), auto_class="AutoModelForImageClassification", settings=chosen)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_a_folder_loads_in_the_dtype_that_is_set(tiny_vit: Path, dtype: str) -> None:
    network = network_of(tiny_vit, dtype=dtype)

    logits = network.predict(network.preprocess(Picture.whole(Image.new("RGB", (50, 40), "red"))))["logits"]

    assert logits.shape == (1, 2)
    assert logits.dtype == "float32"
    assert dict(network.labels) == {0: "left", 1: "right"}
    assert network.info.name == "tiny-vit"
    assert network.info.device == "cpu"


def test_a_device_that_is_not_there_is_a_failed_load(tiny_vit: Path) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        network_of(tiny_vit, device="cuda")


def test_another_model_is_a_setting_away(tiny_vit: Path, tmp_path: Path) -> None:
    with installation(tmp_path, CLASSIFY_MODEL=str(tiny_vit)) as service:
        service.start_api("app.api")
        service.start_worker("app.worker.main")
        service.wait_until_ready()

        result: Any = service.result(service.submit("classify", png(40, 30)))

        assert {prediction["label"] for prediction in result["predictions"]} == {"left", "right"}
        assert result["model"]["name"] == "tiny-vit"
        assert str(tiny_vit) not in service.http.get("/models").text


def test_a_model_that_does_not_load_keeps_its_jobs_until_it_does(tiny_vit: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken-vit"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes((tiny_vit / "model.safetensors").read_bytes())
    with installation(tmp_path, CLASSIFY_MODEL=str(broken)) as service:
        service.start_api("app.api")
        service.remember_worker("classify")
        job_ids = [service.submit("classify", png(40, 30)) for _ in range(3)]
        worker = service.start_worker("app.worker.main")

        reason = wait_for(
            lambda: [why for why in service.http.get("/health/ready").json()["reasons"] if "Error" in why],
            what="the reason",
        )
        assert reason[0].startswith("classify: ")
        assert str(tmp_path) not in reason[0]
        # Other tasks load, and what they do can be sent here.
        wait_for(lambda: service.http.get("/health/ready").status_code == 200, what="another task")
        assert worker.running
        with service.redis.client() as client:
            lane = keys.lane("classify", 5)
            wait_for(lambda: client.llen(lane) == len(job_ids), what="the return of what the worker had taken")
        assert {service.status(job_id)["state"] for job_id in job_ids} == {"PENDING"}

        worker.stop()
        service.start_worker("app.worker.main", CLASSIFY_MODEL=str(tiny_vit))

        service.wait_until_ready()
        assert [service.result(job_id)["attempts"] for job_id in job_ids] == [1, 1, 1]
