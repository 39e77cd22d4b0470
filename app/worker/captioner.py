"""Networks that write text about a picture, run by PyTorch.

The picture and the prompt become tensors (`app.worker.readers`) → the network writes token by token, greedily or with
beams, telling how far it is → the tokens become text.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
import transformers

from app.config import Settings
from app.errors import InvalidOption
from app.imaging import Picture
from app.schemas import ModelInfo
from app.worker.readers import Reading, reader_of
from app.worker.sources import Source
from app.worker.torch_runtime import LOCAL, device_of, dtype_of, load_network, memory_errors, place, reading

_WARM_UP_SIZE = (256, 256)
#: What of a model's own generation settings is kept: which tokens mean what, and which may follow which. All else, such
#: as sampling, lengths and time limits, is for the request to say, or would make answers vary.
_KEPT = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "length_penalty",
    "early_stopping",
)


class TorchCaptioner:
    """A network that writes text, its image processor and its tokenizer, on one device.

    Answers depend on the picture, the prompt and the options alone: nothing is sampled. A network that continues a text
    (BLIP, GIT, a vision encoder-decoder, BLIP-2 with a decoder) gives back the prompt as the beginning of its caption;
    one that answers (a chat model, BLIP-2 with an encoder-decoder) gives the answer alone.
    """

    def __init__(self, source: Source, *, settings: Settings) -> None:
        """Load and warm up, from the source's folder alone.

        Raises `ValueError` for a kind of model that is not supported and for files that do not suffice, and whatever
        transformers raises for a folder it cannot use.
        """
        self._device = device_of(settings)
        self._dtype = dtype_of(settings, self._device)
        transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        folder: Any = source.folder
        with reading(source):
            config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
            self._reader = reader_of(source, config)
            network = load_network("AutoModelForImageTextToText", source, dtype=self._dtype, config=config)
        self._network = place(network.eval(), source=source, settings=settings)
        _drop_habits(self._network)
        #: Text positions the network has; None where they do not end.
        self._positions: int | None = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
        self.labels: Mapping[int, str] = {}
        self.info = ModelInfo(name=source.name, revision=source.revision, runtime="torch", device=self._device.type)
        self._warm_up()

    def least_size(self, width: int, height: int) -> None:
        """Pictures are to be decoded in full: each kind of network has its own way with them."""

    @memory_errors()
    def preprocess(self, picture: Picture, *, prompt: str | None) -> Reading:
        """A picture and a prompt as tensors on the device, a batch of one.

        Raises `InvalidOption` for a prompt that leaves the network no room to write, and `DeviceOutOfMemory` or
        `OutOfMemory`.
        """
        read = self._reader(picture.image, prompt)
        if self._positions is not None and read.taken >= self._positions:
            raise InvalidOption(f"The prompt is too long: the model has {self._positions} tokens for all. Shorten it.")
        return read.to(self._device, self._dtype)

    @memory_errors()
    def generate(self, inputs: Reading, *, max_new_tokens: int, num_beams: int, report: Callable[[float], None]) -> str:
        """Write at most `max_new_tokens`, fewer where the network has no room for more; special tokens are left out.

        `report` is called for each token with the part of them that is written, and what it raises ends the writing.
        Raises `DeviceOutOfMemory` or `OutOfMemory`.
        """
        if self._positions is not None:
            max_new_tokens = min(max_new_tokens, self._positions - inputs.taken)
        with torch.inference_mode():
            written = self._network.generate(
                **inputs.tensors,
                max_new_tokens=max_new_tokens,
                num_beams=num_beams,
                do_sample=False,
                stopping_criteria=transformers.StoppingCriteriaList([_Meter(max_new_tokens, report)]),
            )
        text: str = self._reader.tokenizer.decode(written[0, inputs.skipped :], skip_special_tokens=True)
        return text.strip()

    def _warm_up(self) -> None:
        picture = Picture.whole(Image.new("RGB", _WARM_UP_SIZE))
        for prompt in (None, "a"):  # with either, a network takes another way
            inputs = self.preprocess(picture, prompt=prompt)
            self.generate(inputs, max_new_tokens=2, num_beams=1, report=lambda _: None)


class _Meter(transformers.StoppingCriteria):
    """Called by transformers after each token, of all beams at once. Stops nothing, unless `report` raises."""

    def __init__(self, max_new_tokens: int, report: Callable[[float], None]) -> None:
        self._expected = max_new_tokens
        self._report = report
        self._written = 0

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self._written += 1
        self._report(self._written / self._expected)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _drop_habits(network: torch.nn.Module) -> None:
    """Leave of the generation settings, those of the parts that write included, only what is in `_KEPT`."""
    for part in network.modules():
        if isinstance(part, transformers.GenerationMixin):
            kept = {name: getattr(part.generation_config, name, None) for name in _KEPT}
            part.generation_config = transformers.GenerationConfig(**kept)  # type: ignore[no-untyped-call]
