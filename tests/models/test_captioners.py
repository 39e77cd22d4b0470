"""Networks that write, of every kind that is supported: tiny, random, saved to folders as hub models are."""

import json
import shutil
import socket
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from app.errors import InvalidOption
from app.imaging import Picture
from app.worker.captioner import TorchCaptioner
from app.worker.readers import QUESTION
from app.worker.sources import Source, fetch
from app.worker.torch_runtime import set_threads
from tests.images import noise
from tests.models import tiny_captioners as tiny
from tests.models.settings import settings_for
from tests.models.tiny_captioners import hf

Folders = dict[str, Path]
Captioners = dict[str, TorchCaptioner]

PICTURE = noise(50, 40)
WHOLE = Picture.whole(PICTURE)
PROMPT = "a photo of"
SAVERS: dict[str, Callable[[Path], Path]] = {
    "blip": tiny.save_blip,
    "git": tiny.save_git,
    "vit-gpt2": tiny.save_vit_gpt2,
    "blip2-opt": lambda folder: tiny.save_blip2(folder, encoder_decoder=False),
    "blip2-t5": lambda folder: tiny.save_blip2(folder, encoder_decoder=True),
    "llava": tiny.save_llava,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("models")
    return {kind: save(root / kind) for kind, save in SAVERS.items()}


@pytest.fixture(scope="module")
def captioners(folders: Folders) -> Captioners:
    set_threads(1)  # more are slower for networks as small as these
    return {kind: captioner_of(folder) for kind, folder in folders.items()}


def captioner_of(folder: Path, **settings: str) -> TorchCaptioner:
    chosen = settings_for(**settings)
    return TorchCaptioner(fetch(str(folder), token=None), settings=chosen)


def written(
    captioner: TorchCaptioner,
    *,
    prompt: str | None = None,
    max_new_tokens: int = 20,
    num_beams: int = 1,
    report: Callable[[float], None] = lambda _: None,
) -> str:
    inputs = captioner.preprocess(WHOLE, prompt=prompt)
    return captioner.generate(inputs, max_new_tokens=max_new_tokens, num_beams=num_beams, report=report)


def stock_inputs(kind: str, folder: Path, prompt: str | None) -> tuple[Any, Any]:
    """As transformers' documentation of each kind prepares them, and what decodes the answer."""
    if kind == "vit-gpt2":
        tokenizer = hf.AutoTokenizer.from_pretrained(folder)
        inputs = hf.AutoImageProcessor.from_pretrained(folder)(images=PICTURE, return_tensors="pt")
        if prompt:
            ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False).input_ids]
            inputs["decoder_input_ids"] = torch.tensor([ids])
        return inputs, tokenizer
    processor = hf.AutoProcessor.from_pretrained(folder)
    if kind == "llava":
        text = [{"type": "image", "image": PICTURE}, {"type": "text", "text": prompt or QUESTION}]
        chat = processor.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return chat, processor
    inputs = processor(images=PICTURE, return_tensors="pt", **({"text": prompt} if prompt else {}))
    if kind == "git" and prompt:
        ids = [processor.tokenizer.cls_token_id, *processor.tokenizer(prompt, add_special_tokens=False).input_ids]
        inputs = {"pixel_values": inputs["pixel_values"], "input_ids": torch.tensor([ids])}
    return inputs, processor


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("prompt", [None, PROMPT])
@pytest.mark.parametrize("kind", SAVERS)
def test_the_text_is_that_of_the_stock_network(
    captioners: Captioners, folders: Folders, kind: str, prompt: str | None, num_beams: int
) -> None:
    network = hf.AutoModelForImageTextToText.from_pretrained(folders[kind], dtype=torch.float32).eval()
    inputs, decoder = stock_inputs(kind, folders[kind], prompt)
    tokens = network.generate(**inputs, max_new_tokens=20, num_beams=num_beams, do_sample=False)[0]
    answer = tokens[inputs["input_ids"].shape[1] :] if kind == "llava" else tokens
    expected = decoder.decode(answer, skip_special_tokens=True).strip()
    assert expected

    found = written(captioners[kind], prompt=prompt, num_beams=num_beams)

    assert found == expected


@pytest.mark.parametrize("kind", ["blip", "git", "vit-gpt2", "blip2-opt"])
def test_a_network_that_continues_a_text_begins_with_the_prompt(captioners: Captioners, kind: str) -> None:
    assert written(captioners[kind], prompt=PROMPT).startswith(PROMPT)


@pytest.mark.parametrize("kind", ["blip2-t5", "llava"])
def test_a_network_that_answers_does_not_repeat_the_question(captioners: Captioners, kind: str) -> None:
    assert PROMPT not in written(captioners[kind], prompt=PROMPT)


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("kind", ["blip", "blip2-opt", "llava"])
def test_every_token_is_reported(captioners: Captioners, kind: str, num_beams: int) -> None:
    told: list[float] = []

    written(captioners[kind], max_new_tokens=25, num_beams=num_beams, report=told.append)

    assert told == pytest.approx([count / 25 for count in range(1, 26)])


@pytest.mark.parametrize("num_beams", [1, 4])
def test_what_a_report_raises_ends_the_writing(captioners: Captioners, num_beams: int) -> None:
    class LostError(Exception):
        pass

    told: list[float] = []

    def report(fraction: float) -> None:
        told.append(fraction)
        if len(told) == 3:
            raise LostError

    with pytest.raises(LostError):
        written(captioners["blip"], num_beams=num_beams, report=report)

    assert len(told) == 3


@pytest.mark.parametrize("kind", ["git", "vit-gpt2"])
def test_nothing_is_sampled_whatever_a_model_asks_for(
    captioners: Captioners, folders: Folders, kind: str, tmp_path: Path
) -> None:
    eager = shutil.copytree(folders[kind], tmp_path / "eager")
    habits = json.loads((eager / "generation_config.json").read_text())
    habits |= {
        "do_sample": True,
        "temperature": 50.0,
        "num_beams": 5,
        "max_length": 3,
        "min_length": 2,
        "max_time": 1e-9,
    }
    (eager / "generation_config.json").write_text(json.dumps(habits))
    told: list[float] = []

    captions = [written(captioner_of(eager), report=told.append) for _ in range(2)]

    assert captions == [written(captioners[kind])] * 2
    assert len(told) == 40


def test_a_network_writes_no_more_than_it_has_room_for(tmp_path: Path) -> None:
    captioner = captioner_of(tiny.save_blip(tmp_path / "short", positions=16))
    told: list[float] = []

    written(captioner, prompt="a cat on the street", max_new_tokens=100, report=told.append)

    assert len(told) == 16 - 1 - 5
    assert told[-1] == 1


@pytest.mark.parametrize("kind", ["blip", "vit-gpt2", "llava"])
def test_a_prompt_that_leaves_no_room_is_refused(captioners: Captioners, kind: str) -> None:
    captioner = captioners[kind]

    with pytest.raises(
        InvalidOption, match=r"^The prompt is too long: the model has \d+ tokens for all\. Shorten it\.$"
    ):
        captioner.preprocess(WHOLE, prompt="a" + " cat" * 1000)


@pytest.mark.parametrize("prompt", ["<image> [SEP] <|end|></s><pad>", "\u200b", "\x00", "é\U0001f981", "x" * 40])
@pytest.mark.parametrize("kind", SAVERS)
def test_no_prompt_breaks_a_network(captioners: Captioners, kind: str, prompt: str) -> None:
    told: list[float] = []

    written(captioners[kind], prompt=prompt, max_new_tokens=3, report=told.append)

    assert 1 <= len(told) <= 3


@pytest.mark.parametrize(
    ("kind", "prompt", "beginning"),
    [
        ("blip", "a [SEP] cat", "a sep cat"),
        ("git", "a [SEP] cat", "a sep cat"),
        ("vit-gpt2", "a<|end|>cat", "a<|end|>cat"),
        ("blip2-opt", "a<image></s>cat", "a<image></s>cat"),
    ],
)
def test_special_tokens_in_a_prompt_are_plain_text(
    captioners: Captioners, kind: str, prompt: str, beginning: str
) -> None:
    text = written(captioners[kind], prompt=prompt)

    assert text.startswith(beginning)


@pytest.mark.parametrize("kind", SAVERS)
def test_what_is_fetched_of_a_hub_model_is_enough(
    captioners: Captioners, folders: Folders, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "0123456789abcdef"
    snapshot.mkdir()

    def download(name: str, *, revision: str | None, token: str | None, allow_patterns: list[str]) -> str:
        for path in folders[kind].iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, snapshot)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    source = fetch("someone/something", token=None)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    captioner = TorchCaptioner(source, settings=settings_for())

    assert written(captioner) == written(captioners[kind])
    assert captioner.info.name == "someone/something"
    assert captioner.info.revision == "0123456789ab"


def test_a_blip_of_the_first_days_loads(captioners: Captioners, folders: Folders, tmp_path: Path) -> None:
    """Its tokenizer is a list of words, its parts are described in files of their own, and its text's configuration
    holds settings of generation, as that of Salesforce/blip-image-captioning-base does."""
    old = shutil.copytree(folders["blip"], tmp_path / "old")
    vocabulary = json.loads((old / "tokenizer.json").read_text())["model"]["vocab"]
    processor = json.loads((old / "processor_config.json").read_text())
    config = json.loads((old / "config.json").read_text())
    habits = {
        "do_sample": True,
        "temperature": 50.0,
        "num_beams": 4,
        "max_length": 20,
        "top_k": 50,
        "diversity_penalty": 0.0,
    }
    config["text_config"] |= habits
    for name in ("tokenizer.json", "processor_config.json", "generation_config.json"):
        (old / name).unlink()
    (old / "vocab.txt").write_text("".join(f"{piece}\n" for piece in sorted(vocabulary, key=vocabulary.__getitem__)))
    (old / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    image_processor = {**processor["image_processor"], "processor_class": "BlipProcessor"}
    (old / "preprocessor_config.json").write_text(json.dumps(image_processor))
    (old / "config.json").write_text(json.dumps(config))

    found = written(captioner_of(old), prompt=PROMPT)

    assert found == written(captioners["blip"], prompt=PROMPT)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_captioner_runs_in_the_dtype_that_is_set(folders: Folders, dtype: str) -> None:
    captioner = captioner_of(folders["blip"], dtype=dtype)

    assert captioner.preprocess(WHOLE, prompt=PROMPT).tensors["pixel_values"].dtype == getattr(torch, dtype)
    assert written(captioner, prompt=PROMPT).startswith(PROMPT)
    assert captioner.info.model_dump() == {
        "name": "blip",
        "revision": fetch(str(folders["blip"]), token=None).revision,
        "runtime": "torch",
        "device": "cpu",
    }
    assert not captioner.labels


@pytest.mark.parametrize(
    ("config", "kind"), [("ViTConfig", "vit"), ("GPT2Config", "gpt2"), ("Pix2StructConfig", "pix2struct")]
)
def test_a_kind_that_does_not_caption_is_refused_in_a_sentence(config: str, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    getattr(hf, config)().save_pretrained(folder)
    hf.ViTImageProcessor().save_pretrained(folder)
    tiny.wordpiece().save_pretrained(folder)

    with pytest.raises(
        ValueError, match=rf"^other is of the kind '{kind}', which writes no captions here: take one of"
    ):
        TorchCaptioner(Source(name="other", folder=folder), settings=settings_for())


def test_a_picture_of_any_size_is_captioned(captioners: Captioners) -> None:
    captioner = captioners["git"]

    for size in ((1, 1), (3000, 2), (2, 3000)):
        inputs = captioner.preprocess(Picture.whole(Image.new("RGB", size)), prompt=None)
        assert captioner.generate(inputs, max_new_tokens=5, num_beams=1, report=lambda _: None)
