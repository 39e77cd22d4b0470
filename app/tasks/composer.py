"""A caption without a network that writes: one sentence of the objects that are found and the class that fits best.

The objects come first, those that fill most of the picture foremost: "a photo of a giraffe and a zebra". A class that
is likely and is not among them follows as it is called: "a photo of a cup (looks like: espresso)". Where nothing is
found the class has to do: "a photo of an espresso"; and where that is unlikely, "a photo" is all that can be said.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.imaging import Picture
from app.schemas import ModelInfo
from app.tasks.base import Detection, Detector, Network
from app.tasks.classify import Classify, ClassifyOptions, Prediction

#: What `CAPTION_MODEL` calls it; no folder and no hub id.
COMPOSER = "composer"

_MAX_KINDS = 4
#: How likely the class must be to stand for the whole picture, and to be told beside the objects.
_ALONE, _ASIDE = 0.25, 0.5

_NUMBERS = {2: "two", 3: "three", 4: "four"}
#: Of a name of several words, the last one is in the plural.
_IRREGULAR = {
    "knife": "knives",
    "loaf": "loaves",
    "man": "men",
    "mouse": "mice",
    "person": "people",
    "sheep": "sheep",
    "wolf": "wolves",
    "woman": "women",
}
#: What only comes in pairs.
_PAIRS = frozenset({"binoculars", "scissors", "skis", "sunglasses", "swimming trunks"})
#: What is not counted.
_UNCOUNTED = frozenset(
    {
        "broccoli",
        "chain mail",
        "chocolate sauce",
        "corn",
        "dough",
        "eggnog",
        "guacamole",
        "hair spray",
        "hay",
        "mashed potato",
        "parallel bars",
        "rapeseed",
        "red wine",
        "toilet tissue",
        "velvet",
        "wool",
    }
)
#: Beginnings whose first sound is not what their first letter says.
_SOUNDS_LIKE_A_CONSONANT = ("eu", "ewe", "one", "ukulele", "uni")
_SILENT_H = "hour"


@dataclass(frozen=True)
class _Inputs:
    """A picture as both networks take it, and its size in pixels as it was decoded."""

    detector: Any
    classifier: Any
    width: int
    height: int


class Composer:
    """A `Captioner` made of a detector and a classifier."""

    def __init__(self, detector: Detector, classifier: Network) -> None:
        self._detector = detector
        self._classifier = classifier
        parts = (detector.info, classifier.info)
        self.labels: Mapping[int, str] = {}
        self.info = ModelInfo(
            name=COMPOSER,
            revision="+".join(part.revision for part in parts),
            runtime="+".join(dict.fromkeys(part.runtime for part in parts)),
            device="+".join(dict.fromkeys(part.device for part in parts)),
        )

    def least_size(self, width: int, height: int) -> tuple[int, int] | None:
        """As large as either network needs the picture; None, if one needs all of it."""
        sizes = [network.least_size(width, height) for network in (self._detector, self._classifier)]
        if None in sizes:
            return None
        return max(size[0] for size in sizes if size), max(size[1] for size in sizes if size)

    def preprocess(self, picture: Picture, *, prompt: str | None) -> _Inputs:
        """A picture as both networks take it. There is no use for a prompt."""
        detector, classifier = (network.preprocess(picture) for network in (self._detector, self._classifier))
        return _Inputs(detector, classifier, *picture.decoded_size)

    def generate(self, inputs: _Inputs, *, max_new_tokens: int, num_beams: int, report: Callable[[float], None]) -> str:
        """The sentence, the same for every `max_new_tokens` and `num_beams`; each network is half of the work."""
        outputs = self._detector.predict(inputs.detector)
        found = self._detector.detections(outputs, threshold=None, width=inputs.width, height=inputs.height)
        report(0.5)
        logits = self._classifier.predict(inputs.classifier)["logits"][0]
        best = Classify().postprocess(logits, self._classifier, ClassifyOptions(top_k=1)).predictions[0]
        report(1)
        return compose(found, best)


def compose(found: Sequence[Detection], best: Prediction) -> str:
    """The sentence for these objects and this class."""
    # A class of ImageNet may be given with its synonyms: "tabby, tabby cat".
    label = best.label.partition(",")[0]
    if not found:
        return f"a photo of {phrase(label)}" if best.score >= _ALONE else "a photo"
    numbers, areas = Counter(each.label for each in found), defaultdict[str, float](float)
    for each in found:
        areas[each.label] += (each.xmax - each.xmin) * (each.ymax - each.ymin)
    largest = sorted(areas, key=areas.__getitem__, reverse=True)[:_MAX_KINDS]
    *others, last = [phrase(name, numbers[name]) for name in largest]
    sentence = f"a photo of {', '.join(others)} and {last}" if others else f"a photo of {last}"
    tells_more = best.score >= _ASIDE and label not in numbers
    return f"{sentence} (looks like: {label})" if tells_more else sentence


def phrase(noun: str, number: int = 1) -> str:
    """So many of them, in words: "an apple", "two mice", "a pair of skis", "broccoli", "several people"."""
    if noun in _UNCOUNTED:
        return noun
    counted = "pair" if noun in _PAIRS else noun
    of_what = f" of {noun}" if noun in _PAIRS else ""
    if number == 1:
        return f"{_article(counted)} {counted}{of_what}"
    return f"{_NUMBERS.get(number, 'several')} {_plural(counted)}{of_what}"


def _article(noun: str) -> str:
    word = noun.lower()
    begins_with_vowel = word.startswith(("a", "e", "i", "o", "u")) and not word.startswith(_SOUNDS_LIKE_A_CONSONANT)
    return "an" if begins_with_vowel or word.startswith(_SILENT_H) else "a"


def _plural(noun: str) -> str:
    before, space, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        return before + space + _IRREGULAR[last]
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and not noun.endswith(("ay", "ey", "oy", "uy")):
        return noun[:-1] + "ies"
    return noun + "s"
