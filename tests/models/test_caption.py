"""Captions from end to end: the API and a worker as processes."""

from pathlib import Path
from typing import Any

from tests.models.tiny_captioners import save_blip
from tests.pictures import png
from tests.processes import PHOTOS, Installation, installation

STATED = {
    "giraffe.jpg": "a photo of a giraffe and a zebra",
    "chelsea.png": "a photo of a cat",
    "coffee.png": "a photo of a dining table (looks like: espresso)",
}


def progress_of(service: Installation, job_id: str) -> list[tuple[str, int]]:
    """State and progress, as each long poll tells them, until the job has ended."""
    seen: list[tuple[str, int]] = []
    while not seen or seen[-1][0] not in ("SUCCESS", "FAILURE"):
        document: Any = service.http.get(f"/status/{job_id}", params={"wait": 10}, timeout=20).json()
        seen.append((document["state"], document["progress"]))
    return seen


def test_a_network_of_ones_own_writes_and_tells_how_far_it_is(tmp_path: Path) -> None:
    # Slow enough, with eight beams, for progress to be stored several times.
    folder = save_blip(tmp_path / "tiny-blip", layers=24)
    with installation(tmp_path, CAPTION_MODEL=str(folder), WORKER_TASKS="caption") as service:
        service.start_api("app.api")
        service.start_worker("app.worker.main")
        service.wait_until_ready()

        job_id = service.submit("caption", png(40, 30), prompt="a photo of", num_beams=8, max_new_tokens=100)
        seen = progress_of(service, job_id)
        result: Any = service.result(job_id)
        again: Any = service.result(
            service.submit("caption", png(40, 30), prompt="a photo of", num_beams=8, max_new_tokens=100)
        )

        told = [progress for state, progress in seen if state == "INFERENCE"]
        assert len(set(told)) >= 3
        assert told == sorted(told)
        assert all(40 <= progress <= 85 for progress in told)
        assert seen[-1] == ("SUCCESS", 100)
        assert result["caption"].startswith("a photo of")
        assert len(result["caption"]) > len("a photo of")
        assert again["caption"] == result["caption"]
        assert result["model"]["name"] == "tiny-blip"


def test_options_out_of_range_are_refused_and_a_prompt_without_room_fails_its_job(tmp_path: Path) -> None:
    folder = save_blip(tmp_path / "tiny-blip", positions=16)
    with installation(tmp_path, CAPTION_MODEL=str(folder), WORKER_TASKS="caption") as service:
        service.start_api("app.api")
        service.start_worker("app.worker.main")
        service.wait_until_ready()

        for options in (
            {"num_beams": 9},
            {"max_new_tokens": 101},
            {"max_new_tokens": 0},
            {"prompt": "x" * 501},
            {"prompt": " "},
        ):
            answer = service.post("caption", png(40, 30), **options)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")

        job_id = service.submit("caption", png(40, 30), prompt="a " * 250)
        error: Any = service.wait_for_state(job_id, "FAILURE")["error"]
        assert error["code"] == "invalid_option"
        assert error["message"] == "The prompt is too long: the model has 16 tokens for all. Shorten it."
        assert error["retryable"] is False
        result: Any = service.result(service.submit("caption", png(40, 30), prompt=" a cat "))
        assert result["caption"].startswith("a cat")


def test_the_composer_makes_a_sentence_of_what_the_shipped_networks_see(tmp_path: Path) -> None:
    with installation(tmp_path) as service:
        service.start_api("app.api")
        service.start_worker("app.worker.main")
        service.wait_until_ready()

        job_ids = {photo: service.submit("caption", PHOTOS / photo, num_beams=8) for photo in STATED}
        results: dict[str, Any] = {photo: service.result(job_id) for photo, job_id in job_ids.items()}

        assert {photo: result["caption"] for photo, result in results.items()} == STATED
        models: Any = service.http.get("/models").json()["models"]
        revisions = {model["task"]: model["revision"] for model in models}
        assert results["giraffe.jpg"]["model"] == {
            "name": "composer",
            "revision": f"{revisions['detect']}+{revisions['classify']}",
            "runtime": "openvino",
            "device": "cpu",
        }
