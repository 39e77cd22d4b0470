"""The whole path with the shipped weights: post, watch, fetch; stop everything; start again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PHOTOS, Installation, installation, wait_for


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("whole-path")) as service:
        service.start_api("app.api")
        service.start_worker("app.worker.main")
        service.wait_until_ready()
        yield service


def test_a_dog_is_classified(service: Installation) -> None:
    job_id = service.submit("classify", PHOTOS / "dog.jpg")

    result: Any = service.result(job_id)

    best = result["predictions"][0]
    assert best["label"] in {"malamute", "German shepherd"}
    assert 0.2 < best["score"] < 0.5
    assert len(result["predictions"]) == 5
    assert result["model"] == {
        "name": "models/efficientnet-lite0",
        "revision": "18df6885ca38",
        "runtime": "openvino",
        "device": "cpu",
    }
    assert result["image"]["width"] == 768
    assert result["image"]["height"] == 576
    assert result["image"]["format"] == "jpeg"


def test_a_dog_is_found_where_there_is_one(service: Installation) -> None:
    dog, chelsea = (service.submit("detect", PHOTOS / photo, labels="dog") for photo in ("dog.jpg", "chelsea.png"))

    result: Any = service.result(dog)

    assert result["found"] == {"dog": True}
    assert [prediction["label"] for prediction in result["predictions"]] == ["dog"]
    assert result["predictions"][0]["box"] == {
        "xmin": pytest.approx(130, abs=2),
        "ymin": pytest.approx(213, abs=2),
        "xmax": pytest.approx(329, abs=2),
        "ymax": pytest.approx(535, abs=2),
    }
    assert result["model"]["name"] == "models/nanodet-g"
    assert service.result(chelsea)["found"] == {"dog": False}


def test_a_label_that_the_model_does_not_give_is_refused(service: Installation) -> None:
    answer = service.post("detect", PHOTOS / "dog.jpg", labels="dgo")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    assert answer.json()["detail"].startswith("labels: 'dgo' is no label of this model. Did you mean 'dog'")


def test_options_are_obeyed(service: Installation) -> None:
    job_id = service.submit("classify", PHOTOS / "coffee.png", top_k=3, threshold=0.5, priority="high")

    result: Any = service.result(job_id)

    assert [prediction["label"] for prediction in result["predictions"]] == ["espresso"]
    assert result["predictions"][0]["score"] > 0.9


def test_timings_are_filled_and_consistent(service: Installation) -> None:
    timings: Any = service.result(service.submit("classify", PHOTOS / "dog.jpg", top_k=7))["timings"]

    parts = {name: value for name, value in timings.items() if name != "total_ms"}
    assert set(parts) == {"queued_ms", "download_ms", "decode_ms", "preprocess_ms", "inference_ms", "postprocess_ms"}
    assert all(value >= 0 for value in parts.values())
    assert timings["inference_ms"] > 0
    # Timestamps are cut to the millisecond, and the total holds what lies between the parts.
    assert sum(parts.values()) <= timings["total_ms"] + 2


def test_a_waiting_submission_is_answered_with_the_result(service: Installation) -> None:
    answer = service.http.post(
        "/classify", files={"file": (PHOTOS / "dog.jpg").read_bytes()}, headers={"Prefer": "wait=10"}, timeout=15
    )

    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=10"
    assert answer.json()["predictions"][0]["label"] == "malamute"


@pytest.mark.parametrize("task", ["classify", "detect", "caption"])
def test_the_same_photo_again_is_answered_by_the_first_result(service: Installation, task: str) -> None:
    first, second = [service.result(service.submit(task, PHOTOS / "giraffe.jpg")) for _ in range(2)]

    assert (first["cached"], second["cached"]) == (False, True)
    assert first["job_id"] != second["job_id"]
    for same in ("model", "timings", "image"):
        assert second[same] == first[same]


def test_the_models_that_are_loaded_are_listed(service: Installation) -> None:
    entries = {entry["task"]: entry for entry in service.http.get("/models").json()["models"]}

    assert entries["classify"] == {
        "task": "classify",
        "name": "models/efficientnet-lite0",
        "default": True,
        "revision": "18df6885ca38",
        "runtime": "openvino",
        "device": "cpu",
        "labels": 1000,
        "workers": ["one@test"],
        "error": None,
    }


def test_a_damaged_picture_that_only_a_decode_can_tell_fails_its_job(service: Installation) -> None:
    photo = bytearray((PHOTOS / "coffee.png").read_bytes())
    photo[len(photo) // 2] ^= 0xFF  # a checksum deep in the compressed pixels is wrong now

    document: Any = service.wait_for_state(service.submit("classify", bytes(photo)), "SUCCESS", "FAILURE")

    assert document["status"] == "failed"
    assert document["error"]["code"] == "invalid_image"
    assert document["progress"] is None
    problem = service.http.get(document["urls"]["result"])
    assert problem.status_code == 409
    assert problem.json()["code"] == "job_failed"
    assert problem.json()["error"] == document["error"]


@pytest.mark.timeout(180)  # two starts of everything, the first of which converts the models
def test_results_and_waiting_jobs_survive_a_stop_of_everything(tmp_path: Path) -> None:
    with installation(tmp_path) as service:
        api, worker = service.start_api("app.api"), service.start_worker("app.worker.main")
        finished = service.submit("classify", PHOTOS / "dog.jpg")
        before = service.result(finished)
        worker.stop()
        waiting = service.submit("classify", PHOTOS / "coffee.png")
        api.stop()
        service.redis.process.stop()

        service.redis.start()
        service.start_api("app.api")

        assert service.http.get(f"/result/{finished}").json() == before
        assert service.status(waiting)["state"] == "PENDING"
        service.start_worker("app.worker.main")
        result: Any = service.result(waiting)
        assert result["predictions"][0]["label"] == "espresso"
        wait_for(lambda: service.http.get("/health").json()["queue_depth"] == 0, what="an empty queue")
