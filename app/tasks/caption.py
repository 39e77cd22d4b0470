"""`caption`: what a picture shows, in a sentence."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from app.config import Settings
from app.imaging import Picture, open_scaled
from app.tasks.base import Answer, Attempt, Captioner, Loader, Options, Task
from app.tasks.composer import COMPOSER, Composer


class CaptionOptions(Options):
    """How a model that writes goes about it; the composer, which does not, takes them and has no use for them."""

    max_new_tokens: Annotated[
        int, Field(ge=1, le=100, description="At most this many tokens are written. Not for the composer.")
    ] = 30
    num_beams: Annotated[
        int, Field(ge=1, le=8, description="Beams of the search; more are slower. Not for the composer.")
    ] = 1
    prompt: Annotated[
        Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)] | None,
        Field(
            description="How the caption is to begin, or the question for a model that answers questions. "
            "Not for the composer."
        ),
    ] = None


class CaptionAnswer(Answer):
    """One text."""

    caption: str = Field(description="Begins with the prompt, if the model is one that continues it.")


class Caption(Task[Captioner]):
    """Captions by the composer, or by a network that `TorchCaptioner` loads."""

    name = "caption"
    summary = "Say in a sentence what a picture shows."
    options = CaptionOptions
    answer = CaptionAnswer
    example: ClassVar[dict[str, Any]] = {"caption": "a photo of a giraffe and a zebra"}

    def models(self, settings: Settings) -> tuple[str, ...]:
        """The configured captioners."""
        return settings.caption_model

    def sources(self, settings: Settings) -> tuple[str, ...]:
        """Their folders or hub ids; the composer's are those of the first detector and the first classifier."""
        own = [model for model in settings.caption_model if model != COMPOSER]
        if COMPOSER in settings.caption_model:
            own += [settings.detect_model[0], settings.classify_model[0]]
        return tuple(own)

    def load(self, loader: Loader, model: str) -> Captioner:
        """The composer, whose networks other tasks may share, or a network that writes."""
        if model == COMPOSER:
            settings = loader.settings
            return Composer(loader.detector(settings.detect_model[0]), loader.classifier(settings.classify_model[0]))
        return loader.captioner(model)

    def decode(self, path: Path, model: Captioner, options: CaptionOptions, *, max_pixels: int) -> Picture:
        """The picture, no larger than the captioner needs it."""
        return open_scaled(path, max_pixels=max_pixels, least_size=model.least_size)

    def preprocess(self, image: Picture, model: Captioner, options: CaptionOptions) -> Any:
        """The captioner's own way. Raises `InvalidOption` for a prompt that is too long for it."""
        return model.preprocess(image, prompt=options.prompt)

    def predict(self, inputs: Any, model: Captioner, options: CaptionOptions, attempt: Attempt) -> str:
        """The text."""
        return model.generate(
            inputs, max_new_tokens=options.max_new_tokens, num_beams=options.num_beams, report=attempt.report
        )

    def postprocess(self, outputs: str, model: Captioner, options: CaptionOptions) -> CaptionAnswer:
        """As it was written."""
        return CaptionAnswer(caption=outputs)
