"""The running GRASS session: its libraries, its region, and how a tool ends.

Everything here needs a GRASS session; the C libraries are reached through ctypes.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import functools
import glob
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import grass.script as gs
from grass.exceptions import CalledModuleError

from rlearndeep.errors import DeepLearningError, MissingPackage, missing_package

if TYPE_CHECKING:  # NumPy may be what is missing, and that must be said
    from rlearndeep.scene.geometry import Region

INTERPRETER_VARIABLE = "RLEARNDEEP_PYTHON"
_RESTARTED = "RLEARNDEEP_RESTARTED"
MASK_VARIABLE = "GRASS_MASK"
"""Names another mask than MASK, from GRASS 8.5 on."""
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PLACE = ("GISDBASE", "LOCATION_NAME", "MAPSET")

_cleanups: list[Callable[[], None]] = []
_interrupted = ""
_name_numbers = itertools.count(1)


def run(
    job: Callable[[dict, dict], dict | None],
    options: dict,
    flags: dict,
    interrupted: str = "nothing was left half-written.",
) -> None:
    """Run a tool's job after the parser; end as GRASS users expect.

    A job returns the object that ``format=json`` prints, or None when it printed its own text.
    Errors a user can mend become one ``ERROR:`` line; Ctrl-C, a polite kill and a terminal that is closed end with
    status 130 and cleaned up.
    """
    atexit.register(cleanup)
    say_when_interrupted(interrupted)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        result = job(options, flags)
    except MissingPackage as error:
        _restart_with_other_interpreter()
        gs.fatal(str(error))
    except ImportError as error:
        if error.name is None:  # the ctypes layer of GRASS has no other error for a library that cannot be loaded
            gs.fatal(
                f"The libraries of GRASS must be loadable; {' '.join(str(error).split())} "
                "Start the tool inside a GRASS session, or set LD_LIBRARY_PATH to the directory lib of GISBASE."
            )
        name = str(error.name)
        if name.partition(".")[0] in ("rlearndeep", "grass"):  # no package is missing, we are broken
            raise
        _restart_with_other_interpreter()
        gs.fatal(str(missing_package(name, "This tool", error)))
    except DeepLearningError as error:
        gs.fatal(str(error))
    except CalledModuleError as error:
        command = " ".join(str(error).partition(" ended with an error")[0].split())
        gs.fatal(
            f"Modules of GRASS must be able to read the maps; see the message above. {command} ended with an error. "
            "Mend the map: v.build for a vector without topology, v.db.connect for one whose table is gone."
        )
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        which = f"'{error.filename}'" if error.filename else "one"
        gs.fatal(
            f"The files that a tool works with must be readable or writable; {which} is not ({error.strerror}). "
            "Free disk space or choose another place, and run the command again."
        )
    except KeyboardInterrupt:
        cleanup()
        with suppress(OSError):  # the terminal may be gone
            sys.stderr.write(f"\nInterrupted; {_interrupted}\n")
        sys.exit(130)
    if result is not None and options.get("format") == "json":
        say(json.dumps(result, indent=1, ensure_ascii=False))


def say(text: str) -> None:
    """Print a result; what a pipe no longer takes (``| head``) is dropped, and the tool goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def say_when_interrupted(text: str) -> None:
    """What an interrupted tool says of its outputs from now on."""
    global _interrupted
    _interrupted = text


def at_end(action: Callable[[], None]) -> None:
    """Run ``action`` when the tool ends, however it ends (a kill excepted); last in, first out."""
    _cleanups.append(action)


def cleanup() -> None:
    """Run and forget the actions of :func:`at_end`."""
    with deaf():
        while _cleanups:
            _cleanups.pop()()


@contextmanager
def deaf() -> Iterator[None]:
    """Signals that end a run politely change nothing in this block, nor in the programs that are started in it.

    For what is the end of a run anyway; in other than the main thread nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _POLITE}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: one of a library in C


def remove_at_end(kind: str, name: str) -> None:
    """Remove a temporary map when the tool ends; kind is ``raster`` or ``vector``."""
    at_end(
        lambda: gs.run_command(
            "g.remove", flags="f", type=kind, name=name, quiet=True, stderr=subprocess.DEVNULL, errors="ignore"
        )
    )


def temporary_name(stem: str) -> str:
    """A map name that no other process of any node uses, and that is given once."""
    return gs.append_node_pid(f"tmp_rlearndeep_{stem}{next(_name_numbers)}")


def _restart_with_other_interpreter() -> None:
    interpreter = os.environ.get(INTERPRETER_VARIABLE)
    if not interpreter or os.environ.get(_RESTARTED):
        return
    cleanup()
    os.environ[_RESTARTED] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(interpreter, [interpreter, *sys.argv])
    except OSError as error:
        gs.fatal(
            f"{INTERPRETER_VARIABLE} must name a Python interpreter; '{interpreter}' cannot be started "
            f"({error.strerror}). Correct the variable or unset it."
        )


@functools.cache
def libraries() -> tuple[Any, Any, ctypes.CDLL]:
    """``grass.lib.gis``, ``grass.lib.raster`` and the raster library with calls of our own declaration.

    After the import of ``grass.lib`` an integer passed as ``c_void_p`` is cut to 32 bits; the third
    value lets buffers be passed by address as ``c_size_t``.
    """
    _tell_where_libraries_are()
    import grass.lib.gis as libgis
    import grass.lib.raster as libraster

    libgis.G_gisinit(os.path.basename(sys.argv[0]) or "rlearndeep")
    _catch_fatal_errors(libgis)
    pattern = os.path.join(os.environ["GISBASE"], "lib", "libgrass_raster.*")
    direct = ctypes.CDLL(sorted(glob.glob(pattern))[0])
    row = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
    for name in ("Rast_get_c_row", "Rast_get_f_row", "Rast_get_d_row", "Rast_get_null_value_row"):
        getattr(direct, name).argtypes = row
        getattr(direct, name).restype = None
    for name in ("Rast_put_c_row", "Rast_put_f_row", "Rast_put_d_row"):
        getattr(direct, name).argtypes = row[:2]
        getattr(direct, name).restype = None
    return libgis, libraster, direct


def _tell_where_libraries_are() -> None:
    """GRASS's own search asks the linker first, which starts some forty processes."""
    from grass.lib import ctypes_loader

    if "GISBASE" in os.environ and hasattr(ctypes_loader, "add_library_search_dirs"):
        ctypes_loader.add_library_search_dirs([os.path.join(os.environ["GISBASE"], "lib")])


def _catch_fatal_errors(libgis: Any) -> None:
    """The C library ends the process on fatal errors; see that temporary maps go with it."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_int)

    def routine(message: bytes, fatal: int) -> int:
        text = " ".join(message.decode(errors="replace").split())
        if not fatal and not _warnings_end:
            gs.warning(text)
            return 0
        _end_after_fatal_error(text)

    global _error_routine
    _error_routine = prototype(routine)
    set_routine = libgis.G_set_error_routine
    set_routine(ctypes.cast(_error_routine, set_routine.argtypes[0]))


_error_routine: Any = None
_warnings_end = False
_ending = threading.Lock()


@contextmanager
def warnings_end() -> Iterator[None]:
    """What the C library only warns of in this block, such as a file it cannot rename, ends the process too."""
    global _warnings_end
    _warnings_end = True
    try:
        yield
    finally:
        _warnings_end = False


def _end_after_fatal_error(text: str) -> NoReturn:
    """End the process from inside the C library; Python's own way out is not open there."""
    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # another thread met an error before this one, and ends the process for both
    try:
        gs.error(f"GRASS could not go on: {text} Outputs of this run were not written; check disk space and inputs.")
        cleanup()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(1)


def show_progress(done: int, total: int, step: int = 1) -> None:
    """Print percents in steps, as ``gs.percent`` does, which starts a program each time."""
    libgis, _, _ = libraries()
    libgis.G_percent(done, total, step)


def cell_head(region: Region) -> Any:
    """GRASS's structure for a region, in the projection of the session."""
    libgis, _, _ = libraries()
    head = libgis.Cell_head()
    libgis.G_get_set_window(ctypes.byref(head))
    head.north, head.south, head.east, head.west = region.north, region.south, region.east, region.west
    head.rows, head.cols = region.rows, region.cols
    head.ns_res, head.ew_res = region.nsres, region.ewres
    return head


def current_region() -> Region:
    """The computational region of the session, as the environment gives it."""
    libgis, _, _ = libraries()
    head = libgis.Cell_head()
    libgis.G_get_set_window(ctypes.byref(head))
    return region_of(head)


def region_of(head: Any) -> Region:
    """Region of a GRASS structure."""
    from rlearndeep.scene.geometry import Region

    return Region(head.north, head.south, head.east, head.west, head.rows, head.cols)


def session_of() -> dict[str, str]:
    """What another process needs to work in the current mapset: see :func:`join_session`."""
    env = gs.gisenv()
    return {**{key: env[key] for key in _PLACE}, MASK_VARIABLE: os.environ.get(MASK_VARIABLE, "")}


def join_session(session: dict[str, str]) -> None:
    """Let this process, started in any GRASS session, read what another one reads.

    Raises:
        DeepLearningError: there is no session, or the project is not found from here.
    """
    if "GISBASE" not in os.environ:
        raise DeepLearningError(
            "Workers must run inside a GRASS session; GISBASE is not set. Start them with "
            "'grass PROJECT/MAPSET --exec dask worker ADDRESS'."
        )
    place = os.path.join(session["GISDBASE"], session["LOCATION_NAME"], session["MAPSET"])
    if not os.path.isdir(place):
        raise DeepLearningError(
            f"Workers must see the project at the same place; '{place}' is not there on {os.uname().nodename}. "
            "Keep the project on a shared disk."
        )
    file = os.path.join(_session_directory(), "gisrc")
    with open(file, "w", encoding="utf-8") as stream:
        stream.writelines(f"{key}: {session[key]}\n" for key in _PLACE)
        stream.write("GUI: text\n")
    os.environ["GISRC"] = file
    os.environ[MASK_VARIABLE] = session[MASK_VARIABLE]
    set_session(session)
    libraries()[0].G_unset_window()  # GRASS reads a region once, and the projection with it


def set_session(session: dict[str, str]) -> None:
    """Where the C library of this process looks for maps, and writes them."""
    libgis, _, _ = libraries()
    for key in _PLACE:
        libgis.G_setenv_nogisrc(key, session[key])


@functools.cache
def _session_directory() -> str:
    """For the files of a session of our own; gone when the process ends."""
    directory = tempfile.mkdtemp(prefix="rlearndeep_session_")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def mapset() -> str:
    """Name of the current mapset."""
    return str(gs.gisenv()["MAPSET"])


def mapset_directory() -> Path:
    """Directory of the current mapset."""
    env = gs.gisenv()
    return Path(env["GISDBASE"]) / env["LOCATION_NAME"] / env["MAPSET"]


def command_line() -> str:
    """The command as the user gave it, for histories and manifests."""
    return os.environ.get("CMDLINE") or " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
