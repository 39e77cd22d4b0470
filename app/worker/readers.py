"""How a picture and a prompt become what a network that writes takes, by kind of network.

Most kinds take pixels and a line of tokens to go on from, and differ in what stands around the prompt in that line. A
chat model takes a conversation, which its own template turns into tokens. The forms are those of transformers'
processors and `generate` methods; what a prompt says is always read as plain text, never as special tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from PIL import Image

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, BatchFeature
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from app.worker.sources import Source
from app.worker.torch_runtime import LOCAL

#: What a chat model is asked when there is no prompt.
QUESTION = "Describe this picture in one short sentence."

#: Kinds, as transformers calls them, that take pixels and a line of tokens.
_LINE_KINDS = ("blip", "blip-2", "git", "vision-encoder-decoder")


@dataclass(frozen=True)
class Reading:
    """A picture and a prompt, read."""

    #: The network's arguments, a batch of one.
    tensors: Mapping[str, torch.Tensor]
    #: Positions of its text that are taken before the first new token.
    taken: int
    #: How many tokens, first in what the network gives back, are no part of the caption.
    skipped: int = 0

    def to(self, device: torch.device, dtype: torch.dtype) -> "Reading":
        """The same on a device, its floating-point tensors in `dtype`."""
        return replace(self, tensors=BatchFeature(dict(self.tensors)).to(device, dtype))


class Reader(Protocol):
    """Reads for one network."""

    #: Turns tokens back into text.
    tokenizer: Any

    def __call__(self, image: Image.Image, prompt: str | None) -> Reading:
        """Read an upright RGB picture and a prompt, on the CPU."""


def reader_of(source: Source, config: Any) -> Reader:
    """The reader for a model with this configuration of transformers. Raises `ValueError` for a kind that has none."""
    kind = config.model_type
    if kind in _LINE_KINDS:
        return _LineReader(source, config)
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        processor: Any = AutoProcessor.from_pretrained(source.folder, **LOCAL)  # type: ignore[no-untyped-call]
        if getattr(processor, "chat_template", None):
            return _ChatReader(processor)
    raise ValueError(
        f"{source.name} is of the kind {kind!r}, which writes no captions here: "
        f"take one of {', '.join(_LINE_KINDS)}, or an image-text-to-text model with a chat template."
    )


class _LineReader:
    """For networks that take an image processor's pixels and a line of tokens."""

    def __init__(self, source: Source, config: Any) -> None:
        self._config = config
        # Loaded apart: folders of some kinds hold no processor that joins the two.
        self._image_processor: Any = AutoImageProcessor.from_pretrained(source.folder, **LOCAL)  # type: ignore[no-untyped-call]
        self.tokenizer: Any = AutoTokenizer.from_pretrained(source.folder, **LOCAL)

    def __call__(self, image: Image.Image, prompt: str | None) -> Reading:
        tensors = dict(self._image_processor(images=image, return_tensors="pt"))
        words: list[int] = []
        if prompt is not None:
            words = self.tokenizer(prompt, add_special_tokens=False, split_special_tokens=True).input_ids
        if words:  # without any, each network's own `generate` knows where to start
            argument, line = _line(words, self.tokenizer, self._config)
            tensors[argument] = torch.tensor([line])
        pictures = _picture_tokens(self._config)
        return Reading(tensors, taken=pictures + 1 + len(words), skipped=pictures)


class _ChatReader:
    """For networks that answer in a conversation; the prompt is the question."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.tokenizer: Any = processor.tokenizer

    def __call__(self, image: Image.Image, prompt: str | None) -> Reading:
        content = [{"type": "image", "image": image}, {"type": "text", "text": prompt or QUESTION}]
        tensors = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,
        )
        length = tensors["input_ids"].shape[1]
        return Reading(dict(tensors), taken=length, skipped=length)


def _line(words: list[int], tokenizer: Any, config: Any) -> tuple[str, list[int]]:
    """The argument of `generate` that the line is, and the line that holds these tokens of a prompt."""
    match config.model_type:
        case "blip":  # which puts the decoder's own start in place of the first, and drops the last
            return "input_ids", [tokenizer.cls_token_id, *words, tokenizer.sep_token_id]
        case "git":
            return "input_ids", [tokenizer.cls_token_id, *words]
        case "blip-2":
            pictures = [config.image_token_index] * config.num_query_tokens
            if config.use_decoder_only_language_model:
                return "input_ids", [*pictures, tokenizer.bos_token_id, *words]
            return "input_ids", [*pictures, *words, tokenizer.eos_token_id]
        case _:  # a vision encoder-decoder, which puts the decoder's own start before them
            return "decoder_input_ids", words


def _picture_tokens(config: Any) -> int:
    """How many tokens of the line, and of the network's text, stand for the picture."""
    of_text = config.model_type == "blip-2" and config.use_decoder_only_language_model
    return config.num_query_tokens if of_text else 0
