"""Export to ONNX: Keras needs packages for it that do not know its present versions, so it is refused."""

from __future__ import annotations

from pathlib import Path

from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard


def check_onnx(file: Path, overwrite: bool) -> None:
    """Refuse.

    Raises:
        DeepLearningError: always.
    """
    raise DeepLearningError(
        f"The back-end 'keras' cannot serve every option; it got onnx={file}. Leave it out, or choose backend=torch."
    )


def export_onnx(directory: Path, card: ModelCard, file: Path) -> None:
    """Refuse, as :func:`check_onnx`."""
    check_onnx(file, False)
