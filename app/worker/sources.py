"""Where a configured model comes from: a folder, or a hub id whose files are fetched once, before the worker forks.

Only safetensors weights are taken: other formats are pickles, and a pickle is code to run.
"""

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.config import public_name

logger = logging.getLogger(__name__)

_REVISION_DIGITS = 12
#: Configurations, chat templates, vocabularies of tokenizers, weights.
_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")


@dataclass(frozen=True)
class Source:
    """A configured model, found or not."""

    #: As clients see it.
    name: str
    #: Where its files are; None when they could not be had.
    folder: Path | None = None
    revision: str = ""
    #: What its classes are called, by their index; none for a model without classes.
    labels: tuple[str, ...] = ()
    #: Why there is no folder.
    error: str = ""


#: By what they are configured as; passed on from process to process.
SOURCES: TypeAdapter[dict[str, Source]] = TypeAdapter(dict[str, Source])


def fetch(configured: str, *, token: str | None) -> Source:
    """Find the files of a model setting, downloading them if need be. What goes wrong is in the answer's `error`."""
    folder, name = Path(configured), public_name(configured)
    try:
        if folder.is_dir():
            source = Source(name=name, folder=folder, revision=_fingerprint(folder))
        else:
            source = _download(configured, token=token)
        return replace(source, labels=_labels(source.folder))
    except Exception as error:  # whatever a hub client raises is a reason for readiness, not for a dead worker
        logger.exception("the model %s cannot be had", configured)
        where = "" if folder.is_dir() else " is no folder here and could not be fetched from the hub"
        return Source(name=name, error=f"{name}{where}: {error}")


def _fingerprint(folder: Path) -> str:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError("the folder holds no .safetensors file")
    digests = []
    for path in weights:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    # One file's own digest, as published beside the weights; of several, the digest of theirs.
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(each.digest() for each in digests))
    return whole.hexdigest()[:_REVISION_DIGITS]


def _labels(folder: Path | None) -> tuple[str, ...]:
    """The labels of a model folder as transformers writes them."""
    if folder is None or not (folder / "config.json").exists():  # the load itself says what is missing
        return ()
    labels: dict[str, Any] = json.loads((folder / "config.json").read_text()).get("id2label") or {}
    return tuple(str(labels[index]) for index in sorted(labels, key=int))


def _download(configured: str, *, token: str | None) -> Source:
    # Imported here: a worker whose models are all folders has no use for the hub's client.
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    name, _, revision = configured.partition("@")
    folder = Path(snapshot_download(name, revision=revision or None, token=token, allow_patterns=list(_FILES)))
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError("this revision has no .safetensors file; choose one that has")
    # The hub's cache names a snapshot's folder by its commit.
    return Source(name=name, folder=folder, revision=folder.name[:_REVISION_DIGITS])
