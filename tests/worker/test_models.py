"""Loading: once, remembered, and explained when it fails."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject

from app import tasks
from app.announcements import LoadReport
from app.config import Settings, public_name
from app.errors import ModelUnavailable
from app.tasks.base import Loader
from app.tasks.classify import Classify
from app.tasks.detect import Detect
from app.worker.models import Models, choose
from app.worker.reports import Reports
from app.worker.sources import Source, fetch
from tests.fakes import Echo, FakeModel
from tests.processes import ROOT


class Broken(Echo):
    name = "broken"

    def load(self, loader: Loader, model: str) -> Any:
        raise OSError(
            "cannot read\n  /srv/models/secret/model.safetensors or /opt/cache/x, see https://hub.example/docs"
        )


def load(settings: Settings) -> tuple[Models, dict[str, LoadReport]]:
    models, reports = Models(settings), {}
    models.fetch()
    models.load(lambda task, report: reports.update({task: report}))
    return models, reports


def test_a_failed_load_harms_no_other_task(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASKS", (Broken(), Echo()))

    models, reports = load(settings)

    assert models.require(Echo())["fake"].info.name == "fake"
    assert [model.info.name for model in reports["echo"].models] == ["fake"]
    with pytest.raises(Reject) as refused:
        models.require(Broken())
    assert refused.value.requeue is True


class Choosy(Echo):
    """Offers two models."""

    name = "choosy"

    def models(self, settings: Settings) -> tuple[str, ...]:
        return ("/srv/models/first", "team/second@v1")

    def load(self, loader: Loader, model: str) -> Any:
        return SimpleNamespace(info=FakeModel.info.model_copy(update={"name": public_name(model)}), labels={0: "a"})


def test_every_model_of_a_task_is_loaded_and_chosen_by_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "TASKS", (Choosy(),))

    models, reports = load(settings)

    assert [(model.info.name, model.labels) for model in reports["choosy"].models] == [("first", 1), ("team/second", 1)]
    loaded = models.require(Choosy())
    assert choose(loaded, "team/second").info.name == "team/second"
    assert choose(loaded, None).info.name == "first"
    with pytest.raises(ModelUnavailable, match="'third' is no longer offered"):
        choose(loaded, "third")


def test_a_model_that_goes_by_another_name_does_not_load(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disguised(Echo):
        def models(self, settings: Settings) -> tuple[str, ...]:
            return ("real",)

    monkeypatch.setattr(tasks, "TASKS", (Disguised(),))

    assert load(settings)[1]["echo"].error == "ValueError: the model real calls itself fake"


def test_only_the_tasks_that_are_set_are_served(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASKS", (Choosy(), Echo()))

    _, reports = load(settings.model_copy(update={"worker_tasks": ("echo",)}))

    assert reports.keys() == {"echo"}
    with pytest.raises(ValueError, match="no task 'ehco', but: choosy, echo"):
        tasks.served(settings.model_copy(update={"worker_tasks": ("echo", "ehco")}))


def test_a_network_that_tasks_share_is_loaded_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = []

    class Sharing(Echo):
        def sources(self, settings: Settings) -> tuple[str, ...]:
            return settings.classify_model

        def load(self, loader: Loader, model: str) -> Any:
            networks.append(loader.classifier(loader.settings.classify_model[0]))
            return FakeModel()

    class SharingToo(Sharing):
        name = "too"

    monkeypatch.setattr(tasks, "TASKS", (Sharing(), SharingToo()))

    load(settings.model_copy(update={"runtime": "torch"}))

    assert len(networks) == 2
    assert networks[0] is networks[1]


def test_labels_are_read_from_the_folder(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASKS", (Classify(), Detect()))
    models = Models(settings)
    models.fetch()

    labels = models.labels()

    assert labels["detect"]["models/nanodet-g"][:2] == ("person", "bicycle")
    assert labels.keys() == {"detect"}, "classify has no option that would be checked by its thousand"


def test_the_reason_of_a_failed_load_is_one_line_without_paths(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "TASKS", (Broken(),))

    assert load(settings)[1]["broken"].error == "OSError: cannot read … or …, see https://hub.example/docs"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("no /data, no /srv/a,b/c.", "no …, no …."),
        ("cannot open '/opt/my cache/in, here/x.json' now", "cannot open '…' now"),
        ("cannot open /opt/my cache/x or team/second", "cannot open … or team/second"),
        ("in ~/models/x (or ~ops/y), file:///etc/x/y", "in … (or …), …"),
        ("not found:/etc/x", "not found:…"),
        (
            "GET https://user:p@ss@mirror.internal/team/second?X-Signature=abc failed",
            "GET https://mirror.internal/team/second failed",
        ),
        ("token hf_abcdefghijKLMNOP123 is refused by hf_hub_download", "token … is refused by hf_hub_download"),
        ("bearer our-own-token.", "bearer …."),
        ("no model.safetensors in /srv/my models/first", "no model.safetensors in first"),
        ("/srv/my models/first/config.json: bad", "first/config.json: bad"),
        ("/srv/my models/first-2 is another", "… is another"),
        ("read float16/float32 of team/second, 3 s/it </s>", "read float16/float32 of team/second, 3 s/it </s>"),
    ],
)
def test_the_reason_of_a_failed_load_tells_no_path_and_no_secret(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, message: str, reason: str
) -> None:
    class Telling(Echo):
        def sources(self, settings: Settings) -> tuple[str, ...]:
            return ("/srv/my models/first",)

        def load(self, loader: Loader, model: str) -> Any:
            raise OSError(message)

    monkeypatch.setattr(tasks, "TASKS", (Telling(),))
    monkeypatch.setattr("app.worker.models.fetch", lambda name, token: Source(name=public_name(name)))

    _, reports = load(settings.model_copy(update={"hf_token": "our-own-token"}))

    assert reports["echo"].error == f"OSError: {reason}"


def test_a_reason_calls_a_model_by_its_name_wherever_its_files_are(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache, link = tmp_path / "my hub" / "abc", tmp_path / "a link"
    cache.mkdir(parents=True)
    link.symlink_to(cache)

    class Telling(Echo):
        def sources(self, settings: Settings) -> tuple[str, ...]:
            return ("team/second@v1",)

        def load(self, loader: Loader, model: str) -> Any:
            raise OSError(f"{link}/x of {cache}, not {link}")

    monkeypatch.setattr(tasks, "TASKS", (Telling(),))
    monkeypatch.setattr("app.worker.models.fetch", lambda name, token: Source(public_name(name), folder=link))

    assert load(settings)[1]["echo"].error == "OSError: team/second/x of team/second, not team/second"


def test_a_folder_is_named_by_its_weights() -> None:
    source = fetch(str(ROOT / "models" / "efficientnet-lite0"), token=None)

    assert (source.name, source.revision) == ("efficientnet-lite0", "18df6885ca38")
    assert source.folder is not None


def test_the_files_of_several_weights_make_one_name(tmp_path: Path) -> None:
    for name, content in (("a.safetensors", b"a"), ("b.safetensors", b"b")):
        (tmp_path / name).write_bytes(content)
    before = fetch(str(tmp_path), token=None)
    (tmp_path / "b.safetensors").write_bytes(b"c")

    after = fetch(str(tmp_path), token=None)

    assert len(before.revision) == len(after.revision) == 12
    assert before.revision != after.revision


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()

    source = fetch(str(tmp_path), token=None)

    assert source.folder is None
    assert source.error == f"{tmp_path.name}: the folder holds no .safetensors file"


def test_a_hub_model_is_fetched_at_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["revision"], options["token"]))
        assert not any(pattern.endswith(".bin") for pattern in options["allow_patterns"])
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    folder = tmp_path / "0123456789abcdef0123"
    folder.mkdir()

    lacking = fetch("google/vit-base-patch16-224@main", token="secret")
    (folder / "model.safetensors").touch()
    source = fetch("google/vit-base-patch16-224@main", token="secret")

    assert asked == [("google/vit-base-patch16-224", "main", "secret")] * 2
    assert lacking.folder is None
    assert "no .safetensors file; choose one that has" in lacking.error
    assert (source.name, source.revision) == ("google/vit-base-patch16-224", "0123456789ab")


def test_a_hub_that_cannot_be_reached_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)

    source = fetch("nobody/nothing", token=None)

    assert source.folder is None
    assert source.error == "nobody/nothing is no folder here and could not be fetched from the hub: no route"


def test_reports_of_several_writers_arrive_whole() -> None:
    reports = Reports.open()
    long = LoadReport(error="x" * 400)

    for number in range(50):
        reports.send(f"task{number}", long)

    received = reports.receive(timeout_s=1)
    assert [said.task for said in received] == [f"task{number}" for number in range(50)]
    assert all(said.report == long for said in received)
    assert reports.receive(timeout_s=0) == []


def test_a_report_that_cannot_be_read_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    reports = Reports.open()

    reports.send("one", LoadReport())
    os.write(reports.write_end, b"half a li\n")
    reports.send("two", LoadReport())

    assert [said.task for said in reports.receive(timeout_s=1)] == ["one", "two"]
    assert "something odd" in caplog.text
