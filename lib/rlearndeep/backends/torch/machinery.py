"""The machinery of training: devices, processes, precision, optimizers, schedules, and the state of a run.

Fabric of Lightning serves devices, precision and processes.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlearndeep.backends import is_helper, require
from rlearndeep.backends.machine import is_out_of_memory, keep_memory
from rlearndeep.backends.recipes import STEPWISE
from rlearndeep.backends.running import FIRST_RATE, NotFinite, Options
from rlearndeep.backends.torch.arrays import as_arrays, as_tensors
from rlearndeep.backends.torch.devices import choose_device, choose_precision, multiply_in
from rlearndeep.backends.torch.transfer import Tuning
from rlearndeep.errors import DeepLearningError

Found = TypeVar("Found")

TRAINER_PRECISION = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
"""What Fabric calls the precisions."""


@dataclass
class Schedule:
    """How the learning rate changes: after each ``step`` or each ``epoch``, or never."""

    scheduler: Any
    interval: str

    def after_step(self) -> None:
        """To be called after each batch."""
        if self.interval == "step":
            self.scheduler.step()

    def after_epoch(self, score: float) -> None:
        """To be called after each epoch with a score of which more is better."""
        if self.interval == "plateau":
            self.scheduler.step(score)
        elif self.interval == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return self.scheduler.state_dict() if self.scheduler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        if self.scheduler:
            self.scheduler.load_state_dict(state)


class Trainee:
    """A network that learns, with all that its next step depends on.

    Args:
        fabric: of Lightning: devices, precision, processes.
        module: the network.
        optimizer: of its parameters.
    """

    def __init__(self, fabric: Any, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.module = module
        self.schedule = Schedule(None, "never")
        self._fabric = fabric
        self._network, self._optimizer = fabric.setup(module, optimizer)

    @property
    def processes(self) -> int:
        """Number of processes that share the work."""
        return int(self._fabric.world_size)

    @property
    def rate(self) -> float:
        """Learning rate of the next step, of the parameters that learn fastest."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)

    def set_rate(self, rate: float) -> None:
        """Change the learning rate; other groups of parameters keep their share of it."""
        factor = rate / self.rate
        for group in self._optimizer.param_groups:
            group["lr"] *= factor

    def after_epoch(self, score: float) -> None:
        """Change the learning rate by a score of which more is better."""
        self.schedule.after_epoch(score)

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on beside the network: plain values and arrays."""
        return as_arrays(
            {
                "optimizer": self._optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "precision": self._fabric.strategy.precision.state_dict(),
            }
        )

    def weights(self) -> dict[str, NDArray]:
        """The network as it is, by names of its tensors."""
        return as_arrays(dict(self.module.state_dict()))

    def restore(self, state: dict[str, Any], weights: dict[str, NDArray]) -> None:
        """Inverse of :meth:`state` and :meth:`weights`."""
        state = as_tensors(state)
        self.module.load_state_dict(as_tensors(weights))
        self._optimizer.load_state_dict(state["optimizer"])
        for parameter, values in self._optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:  # other strides round otherwise
                    values[name] = torch.empty_like(parameter).copy_(value)
        self.schedule.load_state_dict(state["schedule"])
        self._fabric.strategy.precision.load_state_dict(state["precision"])

    def _within_memory(self, attempt: Callable[[], Found], shrink: Callable[[RuntimeError], None]) -> Found:
        """What an attempt gives that is repeated, in smaller pieces, while memory does not suffice.

        Args:
            attempt: computes; it may fail after it has moved the statistics of batch normalisation, which are put back.
            shrink: makes the pieces smaller after an error for want of memory, and raises any other.
        """
        before = [buffer.clone() for buffer in self.module.buffers()] if self.module.training else []
        while True:
            try:
                return attempt()
            except RuntimeError as error:
                shrink(error)
            # Not before: the error holds what the attempt had computed.
            self._optimizer.zero_grad()
            for buffer, values in zip(self.module.buffers(), before, strict=False):
                buffer.copy_(values)
            if self._fabric.device.type == "cuda":
                torch.cuda.empty_cache()


def prepared_device(options: Options) -> torch.device:
    """The device, with threads and memory set as training wants them."""
    if options.nprocs:
        torch.set_num_threads(options.nprocs)
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_memory()
    return device


def choose_training_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto`` trains in bf16 on a GPU that computes in it, and in 32-bit floating point on a CPU."""
    return choose_precision("32" if name == "auto" and device.type != "cuda" else name, device)


def make_optimizer(module: nn.Module, options: Options, tuning: Tuning) -> torch.optim.Optimizer:
    """The optimizer of ``optimizer=`` for a network whose parts learn as the tuning says."""
    rate = FIRST_RATE if isinstance(options.learning_rate, str) else options.learning_rate
    decay = options.weight_decay
    groups = tuning.groups(module, rate)
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, rate, momentum=options.momentum, weight_decay=decay)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[options.optimizer]
    return kind(groups, rate, weight_decay=decay, fused=_in_one_pass(options))


def _in_one_pass(options: Options) -> bool | None:
    """Whether Adam shall update all weights in one pass; None leaves it to PyTorch.

    On a CPU that saves a twentieth of a U-Net's step and a fifth of that of a classifier of small patches. It needs
    gradients that lie in memory as the weights do, which autograd promises. On a GPU Fabric refuses to shorten the
    gradients of such an optimizer where they are scaled.
    """
    return True if choose_device(options.device).type == "cpu" else None


def make_schedule(optimizer: torch.optim.Optimizer, options: Options, steps: int) -> Schedule:
    """The schedule of all ``steps`` of a run; each group of parameters keeps its own highest rate."""
    schedulers = torch.optim.lr_scheduler
    total = max(2, steps)
    rates = [group["lr"] for group in optimizer.param_groups]
    if options.scheduler == "step":
        return Schedule(schedulers.StepLR(optimizer, options.step, options.gamma), "epoch")
    if options.scheduler == "plateau":
        plateau = schedulers.ReduceLROnPlateau(optimizer, "max", options.gamma, options.step, threshold=0.0)
        return Schedule(plateau, "plateau")
    if options.scheduler == "onecycle":
        # OneCycleLR divides by the length of the rise less one step: a fifth of five steps must not be chosen.
        rise = 0.2 if total > 5 else 0.3
        # The momentum of sgd is an option of its own.
        cycle = schedulers.OneCycleLR(
            optimizer, rates, total, pct_start=rise, cycle_momentum=options.optimizer != "sgd"
        )
        return Schedule(cycle, "step")
    if options.scheduler == "cosine":
        return Schedule(schedulers.CosineAnnealingLR(optimizer, total), "step")
    return Schedule(None, "never")


def make_fabric(device: torch.device, options: Options) -> Any:
    """Lightning's access to devices and processes; the processes of this run are started now.

    Raises:
        DeepLearningError: there are not the devices and processes that the options say.
    """
    fabric = require("lightning_fabric", "Training with the back-end 'torch'", package="lightning-fabric")
    _silence()
    dtype = choose_training_precision(options.precision, device)
    multiply_in(dtype, device)
    try:
        made = fabric.Fabric(
            accelerator={"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type],
            devices=[device.index or 0] if device.type == "cuda" and options.devices == 1 else options.devices,
            num_nodes=options.nodes,
            strategy=_strategy(options),
            precision=TRAINER_PRECISION[dtype],
            plugins=_surroundings(fabric, options),
        )
        made.launch()
    except (RuntimeError, ValueError, IndexError, fabric.utilities.exceptions.MisconfigurationException) as error:
        if is_out_of_memory(error) or _is_of_others(error):
            raise
        raise _not_as_started(options, str(error)) from error
    if made.world_size != options.devices * options.nodes:
        raise _not_as_started(options, f"processes: {made.world_size}")
    made.barrier()  # helpers read the checkpoint that the first process may have removed
    return made


def _surroundings(fabric: Any, options: Options) -> list[Any]:
    """A process that trains alone does not ask the scheduler, which may have numbered it among others of the kind.

    torchrun is another matter: its processes are always those of one run.
    """
    known = fabric.plugins.environments
    if options.devices * options.nodes > 1:
        _check_started(options, (known.SLURMEnvironment, known.LSFEnvironment, known.MPIEnvironment))
        return []
    if known.TorchElasticEnvironment.detect():
        known.TorchElasticEnvironment().validate_settings(options.devices, options.nodes)
    return [known.LightningEnvironment()]


def _check_started(options: Options, schedulers: Sequence[Any]) -> None:
    """Refuse to wait for machines on which nothing starts the tool; torchrun names the first one's address."""
    started = "MASTER_ADDR" in os.environ or any(scheduler.detect() for scheduler in schedulers)
    if options.nodes > 1 and not started:
        raise _not_as_started(options, "none of them started the tool")


def _not_as_started(options: Options, reason: str) -> DeepLearningError:
    return DeepLearningError(
        f"devices= and nodes= must say what is there, and what torchrun or srun started; got {options.devices} and "
        f"{options.nodes} ({reason.rstrip('.')}). Choose others, or start the tool with as many tasks."
    )


@contextmanager
def in_company(options: Options) -> Iterator[None]:
    """Let a helper end in silence where another process has ended, or all see the same; the first one tells of it."""
    try:
        yield
    except NotFinite:
        if not is_helper(options):
            raise
    except RuntimeError as error:
        if not _is_of_others(error):
            raise
        if not is_helper(options):
            raise DeepLearningError(
                f"All processes of devices={options.devices} and nodes={options.nodes} must go on to the end; one of "
                "them has ended before. It may have told why; go on with -r."
            ) from error


def _is_of_others(error: Exception) -> bool:
    """Whether an error says that another process of the run cannot be reached."""
    return isinstance(error, torch.distributed.DistError) or "/gloo/transport/" in str(error)


def _strategy(options: Options) -> str:
    if options.devices * options.nodes == 1:
        return "auto"
    # An encoder of fewer steps keeps the layers of the others; a branch, levels that the grid has no need of.
    always = options.freeze == "none" and options.architecture not in STEPWISE
    return "ddp" if always else "ddp_find_unused_parameters_true"


def synchronized(module: nn.Module, fabric: Any) -> nn.Module:
    """Batch normalisation over the batches of all processes, which PyTorch has for GPUs only."""
    if fabric.world_size == 1 or fabric.device.type != "cuda":
        return module
    layers = require("timm.layers", "Training on several devices", package="timm")
    return layers.convert_sync_batchnorm(module)


def _silence() -> None:
    """Importing Lightning makes it talkative; only errors shall pass."""
    for name in ("lightning_fabric", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def quietly(device: torch.device) -> Iterator[None]:
    """Silence the chatter of the machinery; warnings and messages to the user are ours.

    On a CPU sums get one order. On a GPU their order stays open: what fixes it is slow, and not there for all.
    """
    deterministic: Any = torch.utils.deterministic
    filled = deterministic.fill_uninitialized_memory
    strict, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(strict or device.type == "cpu", warn_only=True)
        deterministic.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warned)
            deterministic.fill_uninitialized_memory = filled
