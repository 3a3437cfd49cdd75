"""What a bundle is: two model sources and the generator checkpoint that fits them; known ones, YAML files."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agent_specializer.bundles.packages import PACKAGES
from agent_specializer.errors import ConfigError

_CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


class ModelSource(BaseModel):
    """Where one model's weights come from.

    Attributes:
        kind: "package" (weights in an installed Python package), "hub" (Hugging Face) or "local" (a folder as
            `save_pretrained` writes it).
        name: the packaged model, the repository, or the absolute path of the folder.
        revision: branch, tag or commit on the hub; None is its main branch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["package", "hub", "local"]
    name: str = Field(min_length=1)
    revision: str | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ModelSource:
        if self.kind == "package" and self.name not in PACKAGES:
            raise ValueError(f"there is no packaged model {self.name!r}; there are {', '.join(PACKAGES)}")
        if self.revision is not None and self.kind != "hub":
            raise ValueError("only a model on the hub has a revision")
        return self

    @property
    def key(self) -> str:
        """A text that is equal for equal weights, e.g. ``package:gemma-3-270m@a5fd3b62``."""
        version = PACKAGES[self.name].sha256[:8] if self.kind == "package" else self.revision
        return f"{self.kind}:{self.name}@{version}" if version else f"{self.kind}:{self.name}"


class Bundle(BaseModel):
    """A named pair of models, and the generator checkpoint that was trained for them.

    Attributes:
        cloud: the model that reads task descriptions; edge: the small model that answers; perhaps the same.
        checkpoint: folder of the generator checkpoint; None where none ships.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    cloud: ModelSource
    edge: ModelSource
    checkpoint: Path | None = None

    @property
    def key(self) -> str:
        """The pair of weights, whatever the bundle is called."""
        return f"{self.cloud.key} -> {self.edge.key}"


def _packaged(name: str) -> ModelSource:
    return ModelSource(kind="package", name=name)


def _on_hub(name: str) -> ModelSource:
    return ModelSource(kind="hub", name=name)


_GEMMA, _SMOLLM2, _QWEN = map(
    _packaged, ("gemma-3-270m", "smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct")
)
_LLAMA3 = _on_hub("meta-llama/Meta-Llama-3-8B")

BUNDLES: dict[str, Bundle] = {
    known.name: known
    for known in (
        Bundle(name="embedded", cloud=_GEMMA, edge=_GEMMA, checkpoint=_CHECKPOINTS / "embedded"),
        Bundle(name="embedded-large", cloud=_QWEN, edge=_GEMMA),
        Bundle(name="smollm2", cloud=_SMOLLM2, edge=_SMOLLM2),
        Bundle(name="paper", cloud=_LLAMA3, edge=_on_hub("google/gemma-2b")),
        Bundle(name="gemma-2-2b", cloud=_LLAMA3, edge=_on_hub("google/gemma-2-2b")),
        Bundle(name="tinyllama", cloud=_LLAMA3, edge=_on_hub("TinyLlama/TinyLlama_v1.1")),
    )
}
"""The known bundles, by name. "embedded" needs neither network nor account."""


def bundle(name_or_path: str | Path) -> Bundle:
    """The bundle of that name, or the one that a YAML file defines.

    A file reads, with paths relative to its own folder and `name` and `checkpoint` optional::

        name: my-pair
        cloud: {kind: hub, name: Qwen/Qwen2.5-1.5B, revision: main}
        edge: {kind: local, name: ./models/edge}
        checkpoint: ./checkpoint

    Raises:
        ConfigError: no bundle has that name (the known ones are listed), or the file is missing or malformed.
    """
    text = str(name_or_path)
    if text in BUNDLES:
        return BUNDLES[text]
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return _read(path)
    near = difflib.get_close_matches(text, BUNDLES, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"there is no model bundle {text!r}",
        hint=f"{meant}known bundles are {', '.join(BUNDLES)}; or give the path of a YAML file",
    )


class _BundleFile(Bundle):
    """A bundle as a file writes it: the checkpoint's folder must be there."""

    @field_validator("checkpoint")
    @classmethod
    def _exists(cls, checkpoint: Path | None) -> Path | None:
        if checkpoint is not None and not checkpoint.is_dir():
            raise ValueError(f"there is no folder {str(checkpoint)!r}")
        return checkpoint


def _read(path: Path) -> Bundle:
    import yaml

    shape = (
        "a bundle file has the keys cloud and edge ({kind: package|hub|local, name: ...}), name, checkpoint"
    )
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"bundle file {str(path)!r} cannot be read: {error}", hint=shape) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"bundle file {str(path)!r} is not YAML: {error}", hint=shape) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"bundle file {str(path)!r} holds a {type(content).__name__}, not a mapping", hint=shape
        )
    try:
        written = _BundleFile.model_validate(_resolved({"name": path.stem} | content, path.absolute().parent))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False)
        )
        raise ConfigError(f"bundle file {str(path)!r}: {faults}", hint=shape) from error
    if written.name in BUNDLES:
        raise ConfigError(
            f"bundle file {str(path)!r}: {written.name!r} is the name of a built-in bundle",
            hint="give it another name",
        )
    return Bundle(**dict(written))


def _resolved(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The file's content with its relative paths made absolute."""
    result = dict(content)
    if isinstance(result.get("checkpoint"), str):
        result["checkpoint"] = folder / Path(result["checkpoint"]).expanduser()
    for role in ("cloud", "edge"):
        source = result.get(role)
        if isinstance(source, dict) and source.get("kind") == "local" and isinstance(source.get("name"), str):
            # resolve(), so that two spellings of one folder are one source, loaded once.
            result[role] = source | {"name": str((folder / Path(source["name"]).expanduser()).resolve())}
    return result
