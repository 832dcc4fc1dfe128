"""Files that are either whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlearndeep.errors import DeepLearningError

# Until it is complete, a file has a longer name, and file systems take 255 bytes.
_LONGEST_NAME = 240


def write_text(file: Path, text: str) -> None:
    """Write a file, which is on the disk when this returns; a link stays one, to the new file.

    Raises:
        OSError: it cannot be written there.
    """
    with appearing(file) as hidden:
        write_lines(hidden, [text])


def write_lines(file: Path, lines: Iterable[str]) -> None:
    """Write a file that is on the disk when this returns.

    Raises:
        OSError: it cannot be written there.
    """
    with open(file, "w", encoding="utf-8") as stream:
        stream.writelines(lines)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def appearing(file: Path) -> Iterator[Path]:
    """A hidden file beside a file, whose name it gets when the ``with`` block ends well; else it is removed.

    Raises:
        OSError: the name cannot be given.
    """
    file = file.resolve()
    hidden = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield hidden
        hidden.replace(file)
    finally:
        hidden.unlink(missing_ok=True)


def check_listable(directory: str, option: str) -> None:
    """See that the tools that read a directory, and take several, can be given this one.

    Args:
        directory: as the user names it.
        option: that names it, for the message.

    Raises:
        DeepLearningError: the name holds a comma.
    """
    if "," in directory:
        raise DeepLearningError(
            f"Directories are listed with commas between them, so none has a comma in its name; got "
            f"{option}={directory}. Choose another name, or one relative to the current directory."
        )


def check_place(file: Path, option: str) -> None:
    """See that a user's file can be written, before the work begins.

    Args:
        file: where it shall be; what is there already is replaced.
        option: that names it, for the message.

    Raises:
        DeepLearningError: its directory does not exist or may not be written to, or something else is there than a
            file: a directory, a device, a pipe, or standard output.
    """
    if str(file) == "-" or _is_standard_output(file):
        raise DeepLearningError(
            f"The option {option}= names a file; got '{file}', and standard output has the report. Name a file."
        )
    if len(file.name.encode()) > _LONGEST_NAME:
        raise DeepLearningError(
            f"The name of a file has at most {_LONGEST_NAME} bytes; got {option}={file.name}. Choose a shorter name."
        )
    directory = file.resolve().parent
    if (file.exists() and not file.is_file()) or not directory.is_dir() or not os.access(directory, os.W_OK):
        raise DeepLearningError(
            f"The option {option}= names a file in a directory that exists and may be written to; '{file}' is none. "
            "Choose another place."
        )


def _is_standard_output(file: Path) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(1))
    except OSError:  # there is nothing yet, or no standard output
        return False
