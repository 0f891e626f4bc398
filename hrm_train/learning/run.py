"""A training run under way: weights, optimizer, averages and slots, and one step of them all."""

import copy
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hrm_train.data.prepared import Prepared
from hrm_train.errors import CheckpointInvalid, TrainingDiverged
from hrm_train.learning.act import Drawn, Order, Slots
from hrm_train.learning.devices import gathered, is_gpu, summed
from hrm_train.learning.segment import LOSSES, TrainingSegment
from hrm_train.network.dropout import key_of
from hrm_train.network.embedding import VocabularyEmbedding
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import Training

_BETAS: Final = (0.9, 0.95)
"""Of AdamW, as published."""


class Tensors:
    """The prepared arrays as tensors on a device, from which batches are gathered.

    Floating point numbers become `dtype`.
    """

    def __init__(
        self,
        prepared: Prepared,
        window: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        def put(name: str) -> Tensor:
            tensor = torch.from_numpy(getattr(prepared, name)).to(device)
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        self.device = torch.device(device)
        self._features = put("features")
        self._row = put("sample_row")
        self._span = torch.arange(1 - window, 1, device=device)
        self._account = put("sample_account")
        self._instrument = put("sample_instrument")
        self._timeframe = put("sample_timeframe")
        self._returns = put("sample_returns")
        self._lots = put("sample_lots")

    def inputs(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the network gets for the given samples, int64 [B]: the arguments of `encode`."""
        return (
            self._features[self._row[samples][:, None] + self._span],
            self._account[samples],
            self._instrument[samples],
            self._timeframe[samples],
        )

    def labels(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """returns_B5 and lots_B of the given samples, int64 [B]."""
        return self._returns[samples], self._lots[samples]

    def batch(self, drawn: Drawn) -> tuple[Tensor, ...]:
        """Inputs and labels of what was drawn, with identities hidden where they are to be."""
        samples = torch.from_numpy(drawn.sample).to(self.device)
        shown_B2 = torch.from_numpy(drawn.shown).to(self.device)
        features_BWF, account_BC, instrument_B, timeframe_B = self.inputs(samples)
        return (
            features_BWF,
            account_BC,
            instrument_B * shown_B2[:, 0],
            timeframe_B * shown_B2[:, 1],
            *self.labels(samples),
        )


@dataclass(frozen=True)
class Step:
    """What one step came to, over all processes.

    Attributes:
        losses: averages over the batch by `LOSSES`.
        finished: samples that halted with it.
        segments: segments these took, in all.
    """

    losses: dict[str, float]
    finished: int
    segments: int


class Average:
    """An exponential moving average of a model's weights.

    Attributes:
        model: the average; the model itself where `decay` is 0.
    """

    def __init__(self, model: HierarchicalReasoningModel, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model) if decay else model
        self._weights = [*self.model.parameters()], [*model.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`, from 1; the first steps count for more."""
        if self.decay:
            decay = min(self.decay, step / (step + 9))
            get_ema_multi_avg_fn(decay)(*self._weights, step)


class Run:
    """Everything that changes from step to step.

    Attributes:
        model: what is trained.
        average: what is validated and kept.
        slots: this process's part of the batch.
        steps: optimizer steps done.
        started: samples started, over all processes.
        waiting: whether a slot of any process is due a fresh sample.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: HierarchicalReasoningModel,
        prepared: Prepared,
        order: Order,
        untrained: tuple[set[int], set[int]] = (set(), set()),
    ) -> None:
        training = model.settings.training
        fused = is_gpu(fabric)
        optimizer = torch.optim.AdamW(
            _groups(model, training),
            training.learning_rate,
            _BETAS,
            fused=fused,
            foreach=not fused,
        )
        self.fabric = fabric
        self.model = model
        self.module, self.optimizer = fabric.setup(TrainingSegment(model), optimizer)
        self.average = Average(model, training.ema_decay)
        self.order = order
        self._untrained = tuple(map(sorted, untrained))
        weight = model.q_head.logits.weight
        window = model.settings.network.input.window
        self.tensors = Tensors(prepared, window, fabric.device, weight.dtype)
        size = order.slots // fabric.world_size
        number = fabric.global_rank * size + np.arange(size)
        self.slots = Slots(number, model.initialize_states())
        self.steps = 0
        self.started = 0
        self.waiting = True

    def compile(self) -> None:
        """From now on, run compiled steps, and in one process a segment as one recorded graph.

        Kernel by kernel, a host cannot launch as fast as a GPU computes. The recording refers to
        the weights and scales where they lie: `restore` before.
        """
        self.model.compile_steps()
        if self.fabric.world_size > 1:
            return  # DDP reduces gradients while they come in
        self.model.train()
        last_B = torch.zeros(len(self.slots.number), dtype=torch.bool, device=self.fabric.device)
        drawn = self.tensors.batch(self.slots.drawn)
        example = (*drawn, *self.slots.states, last_B, self._key())
        bf16 = self.model.settings.training.precision == "bf16"
        kind = self.fabric.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=bf16, cache_enabled=False):
            torch.cuda.make_graphed_callables(self.module.module, example)

    def advance(self, where: str) -> Step:
        """One segment of every slot, and one optimizer step.

        Args:
            where: names the step in an error.

        Raises:
            TrainingDiverged: a loss or the gradient is not finite. The weights are as before.
        """
        training, slots = self.model.settings.training, self.slots
        self.model.train()
        slots.refill(self.order)
        last_B = torch.from_numpy(slots.last(training.max_segments)).to(self.fabric.device)
        key = self._key()
        losses, *after = self.module(*self.tensors.batch(slots.drawn), *slots.states, last_B, key)
        self.fabric.backward(losses[-1])
        norm = self.fabric.clip_gradients(
            self.module,
            self.optimizer,
            max_norm=training.clip_norm or math.inf,
            error_if_nonfinite=False,
        )
        q_B2, zH_BSD, zL_BSD = (tensor.detach() for tensor in after)
        slots.advance(q_B2.float().cpu().numpy(), (zH_BSD, zL_BSD), training.max_segments)
        *sums, finished, segments, started = self._sum(
            [
                *(losses.detach().double() / self.fabric.world_size).tolist(),
                float(slots.halted.sum()),
                float(slots.segment[slots.halted].sum()),
                float(slots.count.sum()),
            ]
        )
        found = dict(zip(LOSSES, sums, strict=True))
        assert norm is not None  # of a strategy that clips by value
        self._require_finite({**found, "gradient": norm.item()}, where)
        self.steps += 1
        rate = min(1.0, self.steps / (training.warmup_steps + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.steps)
        self.started, self.waiting = int(started), finished > 0
        return Step(found, int(finished), int(segments))

    def _key(self) -> Tensor:
        """Of the dropout of the next step in this process."""
        seed, process = self.model.settings.training.seed, self.fabric.global_rank
        return key_of(seed, self.steps, process, device=self.fabric.device)

    def share_unknown(self) -> None:
        """Let the names that no training sample has be decided for as unknown ones are."""
        for model in (self.model, self.average.model):
            network = model.input_network
            tables = (network.instrument_embedding.weight, network.timeframe_embedding.weight)
            for weight, rows in zip(tables, self._untrained, strict=True):
                weight.data[rows] = weight.data[0].clone()

    def capture(self) -> dict[str, Tensor]:
        """Everything the next step depends on, by name; the same in every process.

        All processes must call it.
        """
        tensors = {f"model/{name}": t for name, t in self.model.state_dict().items()}
        if self.average.decay:
            own = self.average.model.state_dict()
            tensors |= {f"average/{name}": t for name, t in own.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": t for name, t in moments.items()}
        for name, tensor in self._slots().items():
            tensors[f"slots/{name}"] = gathered(self.fabric, tensor)
        return tensors

    def restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Go on from what `capture` gave after `steps` steps, in any number of processes."""
        slots = _part(tensors, "slots")
        saved = len(slots["count"])
        if saved != self.order.slots:
            raise CheckpointInvalid(
                f"the saved state: expected {self.order.slots} samples in work at once, found "
                f"{saved}; resume with the number of processes it was begun with"
            )
        self.steps = steps
        self.model.load_strict(_part(tensors, "model"), "the saved state")
        if self.average.decay:
            self.average.model.load_strict(_part(tensors, "average"), "the saved state")
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer").items():
            index, _, moment = name.partition("/")
            moments.setdefault(int(index), {})[moment] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        own = torch.from_numpy(self.slots.number)
        for name, tensor in self._slots().items():
            tensor.copy_(slots[name][own])
        started, halted = self._sum([float(self.slots.count.sum()), float(self.slots.halted.sum())])
        self.started, self.waiting = int(started), halted > 0

    def _slots(self) -> dict[str, Tensor]:
        """The slots' arrays as tensors over the same memory."""
        slots = self.slots
        arrays = {
            "count": slots.count,
            "segment": slots.segment,
            "halted": slots.halted,
            "sample": slots.drawn.sample,
            "least": slots.drawn.least,
            "shown": slots.drawn.shown,
        }
        named = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {**named, "z_H": slots.states[0], "z_L": slots.states[1]}

    def _sum(self, values: list[float]) -> list[float]:
        """Each value, summed over all processes."""
        total = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        found: list[float] = summed(self.fabric, total).tolist()
        return found

    def _require_finite(self, numbers: dict[str, float], where: str) -> None:
        bad = [name for name, value in numbers.items() if not math.isfinite(value)]
        if not bad:
            return
        samples = torch.from_numpy(self.slots.drawn.sample).to(self.tensors.device)
        features, account, _, _ = self.tensors.inputs(samples)
        returns, lots = self.tensors.labels(samples)
        sound = features.isfinite().all(-1).all(-1) & account.isfinite().all(-1)
        sound &= lots.isfinite() & returns.isfinite().any(-1)  # NaN marks an illegal action
        broken = gathered(self.fabric, ~sound)
        named = gathered(self.fabric, samples)[broken][:5].tolist()
        raise TrainingDiverged(
            f"{where}: expected finite losses and gradient, found no number in {', '.join(bad)}; "
            + (
                f"samples {named} of the training tensors hold none themselves: prepare them again"
                if named
                else "the samples of the batch are sound: lower training.learning_rate"
            )
        )


def _groups(model: HierarchicalReasoningModel, training: Training) -> list[dict[str, object]]:
    """Matrices decay. Rows of a table that no sample names would only fade; biases are few."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, VocabularyEmbedding)}
    decaying: list[Tensor] = []
    kept: list[Tensor] = []
    for parameter in model.parameters():
        decays = parameter.ndim >= 2 and id(parameter) not in tables
        (decaying if decays else kept).append(parameter)
    return [
        {"params": decaying, "weight_decay": training.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    start = f"{part}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
