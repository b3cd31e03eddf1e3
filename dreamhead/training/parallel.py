"""One training in several processes: who is who, gradients that meet, and whole states on the first of them."""

import contextlib
import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from dreamhead.training.task import Figures, Task

ValueT = TypeVar("ValueT")
State = dict[str, Any]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Crew:
    """The processes that train together, seen from one of them; by default, one alone."""

    device: torch.device = CPU
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls, device: torch.device, parallel: Literal["ddp", "fsdp2"]) -> "Crew":
        """Those of this process's group, if it has joined one."""
        if not dist.is_initialized():
            return cls(device, parallel)
        return cls(device, parallel, dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this is the process that validates, writes and speaks."""
        return self.rank == 0

    def gather(self, value: ValueT) -> list[ValueT]:
        """Every process's value, in the order of ranks; all of them must call this."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def take_over(self, model: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.size > 1:
            for part in model.state_dict().values():
                dist.broadcast(part, 0)


class Network:
    """A task's network, made ready for the crew: what is called, what is optimized, what is saved.

    The loss is called as the forward pass of one module around it: so gradients meet whatever method of the network
    the task calls.

    Args:
        task: its model is on the crew's device, the same in all processes.
    """

    def __init__(self, task: Task, crew: Crew) -> None:
        self.plain = copy.deepcopy(task.model) if crew.leads else None
        """A second network on the first process, for averaged weights; never wrapped."""
        self.model = task.model
        self._crew = crew
        self._called: nn.Module = _Loss(task)
        self._sharded: FSDPModule | None = None
        if crew.size > 1 and crew.parallel == "fsdp2":
            self._sharded = _shard(self._called, task.model, crew)
        elif crew.size > 1:
            # Buffers are fitted before the first step and don't change.
            self._called = DistributedDataParallel(self._called, broadcast_buffers=False)
        self.parameters = [parameter for parameter in task.model.parameters() if parameter.requires_grad]

    def loss(self, examples: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Figures]:
        """The task's loss of this process's examples."""
        result: tuple[Tensor, Figures] = self._called(examples, generator)
        return result

    def meeting(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward pass of one part of a step: gradients meet in the last one only."""
        if self._sharded is not None:
            self._sharded.set_requires_gradient_sync(last)
        elif isinstance(self._called, DistributedDataParallel) and not last:
            return self._called.no_sync()
        return contextlib.nullcontext()

    def clip(self, max_norm: float) -> float:
        """Scale the gradients down to a length of `max_norm`; the length that they had."""
        norm = nn.utils.clip_grad_norm_(self.parameters, max_norm)
        return float(whole(norm))

    def state(self, optimizer: torch.optim.Optimizer) -> tuple[State, State]:
        """Whole weights and optimizer state, on the CPU of the first process; all must call this."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(self.model, options=options)
        return weights, get_optimizer_state_dict(self.model, optimizer, options=options)

    def load_weights(self, weights: State) -> None:
        """Take whole weights; those that the first process gives count."""
        set_model_state_dict(self.model, dict(weights), options=self._loading())

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: State) -> None:
        """Take a whole optimizer state; the one that the first process gives counts."""
        set_optimizer_state_dict(self.model, optimizer, state, options=self._loading())

    def averaged(self, parameters: list[Tensor]) -> State:
        """Whole state with other values of the parameters that are trained; all must call this."""
        names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        others = dict(zip(names, parameters, strict=True))
        return {
            name: whole(others.get(name, part)).detach().cpu().clone() for name, part in self.model.state_dict().items()
        }

    def _loading(self) -> StateDictOptions:
        return StateDictOptions(full_state_dict=True, broadcast_from_rank0=self._crew.size > 1)


def whole(part: Tensor) -> Tensor:
    """A tensor that isn't cut into pieces."""
    return part.full_tensor() if isinstance(part, DTensor) else part


class _Loss(nn.Module):
    """The task's loss as a forward pass."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._task = task

    def forward(self, examples: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Figures]:
        return self._task.loss(examples, generator)


def _shard(outer: nn.Module, model: nn.Module, crew: Crew) -> FSDPModule:
    mesh = init_device_mesh(crew.device.type, (crew.size,))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    return fully_shard(outer, mesh=mesh)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost entries of lists of modules, as UNets and transformers hold their blocks."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)
