"""Why a model did not load, as clients may know it: without the paths and the secrets of the server."""

import re
from collections.abc import Mapping
from pathlib import Path

from app.config import Settings
from app.worker.sources import Source

#: What a reason must not tell, and what stands in its place, one after the other.
_HIDDEN = (
    (re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{10,}\b"), "…"),  # tokens of the hub
    (re.compile(r"(?<=//)[^/\s]+@"), ""),  # who asks, in a URL
    (re.compile(r"(\bhttps?://[^\s?]+)\?[^\s'\"]+"), r"\1"),  # signatures, in a URL
    (re.compile(r"""(['"`])(?:file:|~|/)[^'"`]*\1"""), r"\1…\1"),  # a quoted path, whatever is in it
    (re.compile(r"\bfile:[^\s'\"`]+"), "…"),
    # Any other path, up to the punctuation after it. After a space it goes on with what holds a slash and is no URL.
    (
        re.compile(r"(?<![\w./<])(?!(?<=:)//)(?:~[\w.-]*)?/[^\s'\"`]*[\w…](?: (?!\w+://)[^\s/'\"`]+/[^\s'\"`]*\w)*/?"),
        "…",
    ),
)
_MAX_REASON = 400


def reason_of(error: Exception, *, settings: Settings, sources: Mapping[str, Source]) -> str:
    """One line that says why; models go by their public names in it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {' '.join(lines)}" if lines else type(error).__name__
    literal = _literals(settings, sources)
    if literal:
        longest_first = "|".join(re.escape(each) for each in sorted(literal, key=len, reverse=True))
        text = re.sub(rf"(?:{longest_first})(?![\w-])", lambda found: literal[found[0]], text)
    for hidden, instead in _HIDDEN:
        text = hidden.sub(instead, text)
    return text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + "…"


def _literals(settings: Settings, sources: Mapping[str, Source]) -> dict[str, str]:
    """What to say for the hub's token and for the models' folders, as configured and as found: their public names."""
    literals = {settings.hf_token: "…"} if settings.hf_token else {}
    for configured, source in sources.items():
        found = (source.folder.absolute(), source.folder.resolve()) if source.folder else ()
        for folder in (Path(configured), *found):
            if folder.is_absolute() and folder.name:
                literals[str(folder)] = source.name
    return literals
