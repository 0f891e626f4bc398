"""The network as a whole. The model owns the steps; callers own the loop.

Source of the equations: "Hierarchical Reasoning Model", arXiv 2506.21734. Where this network
follows it and where it departs is in docs/model.md.

Suffixes of tensors give their shape, here and in the modules beside this one:

    B batch     W window rows    F features of a row    P patches    C account values
    S tokens    D state width    A attention heads      K head width
    N cycles    T timesteps      I identity: instrument and timeframe
"""

import copy
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MethodType
from typing import Any, Final, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hrm_runtime.errors import BadInput
from hrm_train.differences import differences
from hrm_train.errors import CheckpointInvalid, SettingsInvalid
from hrm_train.network.dropout import Dropout
from hrm_train.network.embedding import InputEmbeddingNetwork, ModelInput
from hrm_train.network.heads import PolicyHead, QHead, QuantityHead, ValueHead
from hrm_train.network.layers import QuantisableLinear
from hrm_train.network.recurrent import HighLevelModule, LowLevelModule
from hrm_train.settings import Settings, parse_settings

Outputs = dict[str, Tensor]
States = tuple[Tensor, Tensor]
"""(zH_BSD, zL_BSD), of widths D_H and D_L."""

_SCALE: Final = ".input_scale"
"""What the state calls a product's, behind its name."""


class _LoadModel:
    """`load_model`: of the class it makes a model, of a model it loads in place."""

    def __get__(
        self,
        model: "HierarchicalReasoningModel | None",
        kind: type["HierarchicalReasoningModel"],
    ) -> Callable[[str | Path], "HierarchicalReasoningModel"]:
        return MethodType(_made_of, kind) if model is None else MethodType(_load_in_place, model)


class HierarchicalReasoningModel(nn.Module):
    """Two recurrent transformers: H thinks slowly over what L works out quickly.

    `encode`, `low`, `high` and `decode` are the steps; `forward` runs N cycles of T timesteps
    over them, as the trainer and the exporter do with loops of their own.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        network = settings.network
        self._follow(settings)
        self.tokens = network.tokens
        self.input_network = InputEmbeddingNetwork(network)
        self.h_module = HighLevelModule(network)
        self.l_module = LowLevelModule(network)
        self.dropout = Dropout(network.output_heads.dropout)
        self.policy_head = PolicyHead(network)
        self.quantity_head = QuantityHead(network)
        self.value_head = ValueHead(network)
        self.q_head = QHead(network)

    def _follow(self, settings: Settings) -> None:
        """Have these settings, and the loops that they say."""
        loops = settings.network.hierarchical
        self.settings = settings
        self.cycles, self.timesteps = loops.N_cycles, loops.T_timesteps
        self.reset_l = loops.reset_l_module

    @property
    def N(self) -> int:  # noqa: N802, as published
        """Cycles."""
        return self.cycles

    @property
    def T(self) -> int:  # noqa: N802, as published
        """Timesteps of a cycle."""
        return self.timesteps

    def encode(
        self, features_BWF: Tensor, account_BC: Tensor, instrument_B: Tensor, timeframe_B: Tensor
    ) -> Tensor:
        """The input as tokens, [B, S, D_L]."""
        given = ModelInput(features_BWF, account_BC, instrument_B, timeframe_B)
        x_BSD: Tensor = self.input_network(given)
        return x_BSD

    def low(
        self, zL_BSD: Tensor, zH_BSD: Tensor, x_BSD: Tensor, key: Tensor | None = None
    ) -> Tensor:
        """One step of L; `key` is that of its dropout, as `hrm_train.network.dropout`."""
        next_BSD: Tensor = self.l_module(zL_BSD, zH_BSD, x_BSD, key)
        return next_BSD

    def high(self, zH_BSD: Tensor, zL_BSD: Tensor, key: Tensor | None = None) -> Tensor:
        """One step of H."""
        next_BSD: Tensor = self.h_module(zH_BSD, zL_BSD, key)
        return next_BSD

    def decode(self, zH_BSD: Tensor, account_BC: Tensor, key: Tensor | None = None) -> Outputs:
        """The four answers, all read from token 0 of z_H."""
        z_BD = self.dropout(zH_BSD[:, 0], key)
        return {
            "action_type": self.policy_head(z_BD, account_BC[:, 0]),
            "quantity": self.quantity_head(z_BD),
            "value": self.value_head(z_BD),
            "q_values": self.q_head(z_BD),
        }

    def initialize_states(self, z_init: States | None = None) -> States:
        """`z_init`, or the fixed initial states [1, S, D], the same for every token and row."""
        if z_init is not None:
            return z_init
        h_D, l_D = self.h_module.initial_D, self.l_module.initial_D
        return h_D.expand(1, self.tokens, -1), l_D.expand(1, self.tokens, -1)

    def reset_l_module(self, zL_BSD: Tensor) -> Tensor:
        """The state from which L starts a cycle after the first: initial, or carried on."""
        return self.initialize_states()[1].expand_as(zL_BSD) if self.reset_l else zL_BSD

    @overload
    def forward(self, x: ModelInput, z_init: States | None = None) -> tuple[Outputs, States]: ...

    @overload
    def forward(
        self,
        features: Tensor,
        account: Tensor,
        instrument: Tensor,
        timeframe: Tensor,
        z_init: States | None = None,
    ) -> tuple[Outputs, States]: ...

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Outputs, States]:
        """One segment: N cycles of T timesteps, then the heads.

        Args:
            x: what a pass needs, in one; or its four parts one by one.
            z_init: (z_H, z_L) to continue from, [B, S, D] or, of the same for every row,
                [1, S, D]; the initial states if left out.

        Returns:
            The outputs (`action_type` [B, 5], `quantity` [B], `value` [B], `q_values` [B, 2],
            `l_residual` [B, N, T], `h_residual` [B, N]) and the final (z_H, z_L).

        Raises:
            BadInput: as `ModelInput.require`, or states of another shape.
        """
        in_one = "x" in kwargs or isinstance(next(iter(args), None), ModelInput)
        x, z_init = (_in_one if in_one else _one_by_one)(*args, **kwargs)
        x.require(self.settings.network, self.q_head.logits.weight.dtype)
        return self.segment(x, _sound(self.initialize_states(), z_init, len(x.features)))

    def segment(self, x: ModelInput, z_init: States | None = None) -> tuple[Outputs, States]:
        """`forward` of what is known to be sound: nothing is checked, and no device waited for."""
        zH_BSD, zL_BSD = self.initialize_states(z_init)
        x_BSD = self.encode(*x)
        l_residuals, h_residuals = [], []
        for n in range(self.cycles):
            if n > 0:
                zL_BSD = self.reset_l_module(zL_BSD)
            zH_BSD, zL_BSD, l_BT, h_B = cycle(self, zH_BSD, zL_BSD, x_BSD, self.timesteps)
            l_residuals.append(l_BT)
            h_residuals.append(h_B)
        residuals = {
            "l_residual": torch.stack(l_residuals, dim=1),
            "h_residual": torch.stack(h_residuals, dim=1),
        }
        return self.decode(zH_BSD, x.account) | residuals, (zH_BSD, zL_BSD)

    def compile_steps(self) -> None:
        """Have the steps of H and L compiled, each time they meet another size or mode.

        The steps are compiled, and not the loop over them: that has the same ones N x T times.
        """
        for module in (self.h_module, self.l_module):
            module.compile(dynamic=False)

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return self.q_head.logits.weight.device

    @property
    def products(self) -> dict[str, QuantisableLinear]:
        """The products of both recurrent modules, by name of module."""
        return {n: m for n, m in self.named_modules() if isinstance(m, QuantisableLinear)}

    @property
    def scales(self) -> dict[str, Tensor]:
        """The input scale of every product, by name; none where quantisers are off."""
        found = {name: product.input_scale for name, product in self.products.items()}
        return {name: scale for name, scale in found.items() if scale is not None}

    @property
    def quantised(self) -> bool:
        """Whether the recurrent products are computed in integers: `quantisation`."""
        return bool(self.scales)

    def quantise(self, scales: Mapping[str, float | Tensor], source: str = "scales") -> None:
        """Switch the quantiser of every product on.

        Args:
            scales: input scales by the names of `products`, as `scales.calibrate` finds.
            source: names them in an error.

        Raises:
            CheckpointInvalid: a product is missing or unknown, or a scale is no positive number.
                Nothing was switched.
        """
        products = self.products
        if differing := sorted(products.keys() ^ scales.keys()):
            raise CheckpointInvalid(
                f"{source}: expected the scale of every recurrent product and no other, found "
                f"{'one' if differing[0] in scales else 'none'} of {differing[0]}"
            )
        weight = self.q_head.logits.weight
        found = {n: torch.as_tensor(scale).to(weight, copy=True) for n, scale in scales.items()}
        for name, scale in found.items():
            if scale.ndim or not 0 < scale < math.inf:
                raise CheckpointInvalid(
                    f"{source}: {name}: expected a scale above 0, found {scale.tolist()}"
                )
        for name, product in products.items():
            product.input_scale = found[name]

    def without_quantisers(self) -> "HierarchicalReasoningModel":
        """The same network with quantisers off. It shares the weights."""
        twin = copy.deepcopy(self, {id(weight): weight for weight in self.parameters()})
        twin.unquantise()
        return twin

    def unquantise(self) -> None:
        """Switch the quantiser of every product off."""
        for product in self.products.values():
            product.input_scale = None

    def save_model(self, path: str | Path) -> None:
        """Write weights and settings to one safetensors file."""
        metadata = {"settings": self.settings.model_dump_json()}
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        Path(path).write_bytes(save(state, metadata))

    load_model = _LoadModel()
    """Load a file of `save_model`: called on a model in place, on the class as a new model.

    Both return the model, in eval mode, bit-equal to the one that was saved.

    Raises:
        CheckpointInvalid: missing or no file of `save_model`; a tensor missing, unknown or of
            another shape than its settings say; or, in place, of another network or other tensors
            than this one's (other types, or modules compiled or added by hand), which then stays
            as it was.
    """

    def load_strict(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load `state`, refusing any difference in names, shapes or types.

        Where it has input scales, quantisers are switched on.

        Raises:
            CheckpointInvalid: naming the tensors that differ, or as `quantise`.
        """
        scales = {n.removesuffix(_SCALE): t for n, t in state.items() if n.endswith(_SCALE)}
        own = {name: (list(t.shape), t.dtype) for name, t in self.state_dict().items()}
        if scales:
            scalar: tuple[list[int], torch.dtype] = ([], self.q_head.logits.weight.dtype)
            own |= {name + _SCALE: scalar for name in self.products}
        given = {name: (list(t.shape), t.dtype) for name, t in state.items()}
        if own != given:
            differing = [name for name in own | given if own.get(name) != given.get(name)]
            first = differing[0]
            raise CheckpointInvalid(
                f"{source}: {len(differing)} tensors differ from what the settings say; {first}: "
                f"expected {own.get(first, 'nothing')}, found {given.get(first, 'nothing')}"
            )
        if scales:
            self.quantise(scales, source)
        self.load_state_dict(state)


def _sound(own: States, z_init: States | None, rows: int) -> States:
    """The states to begin with, held to the shapes and the type of the network's `own`."""
    if z_init is None:
        return own
    given = tuple(z_init)
    shapes = [tuple(state.shape) if isinstance(state, Tensor) else state for state in given]
    expected = [[(n, *state.shape[1:]) for n in {1, rows}] for state in own]
    if len(given) != 2 or any(shape not in of for shape, of in zip(shapes, expected, strict=True)):
        raise BadInput(
            f"z_init: expected (z_H, z_L) of {rows} or 1 rows of {tuple(own[0].shape[1:])} and "
            f"{tuple(own[1].shape[1:])}, found {shapes}"
        )
    z_H, z_L = given
    if not (
        z_H.dtype == z_L.dtype == own[0].dtype and z_H.isfinite().all() and z_L.isfinite().all()
    ):
        raise BadInput(
            f"z_init: expected finite numbers of {own[0].dtype}, found {z_H.dtype} and "
            f"{z_L.dtype}, or some that are not finite"
        )
    return z_H, z_L


def _read(path: str | Path) -> tuple[Settings, dict[str, Tensor]]:
    """What `save_model` wrote."""
    try:
        with safe_open(str(path), framework="pt") as file:
            settings = json.loads((file.metadata() or {})["settings"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return parse_settings(settings, source=str(path)), state
    except (OSError, SafetensorError, KeyError, ValueError, SettingsInvalid) as error:
        raise CheckpointInvalid(f"{path}: expected weights of this model: {error}") from error


def _made_of(
    kind: type[HierarchicalReasoningModel], path: str | Path
) -> HierarchicalReasoningModel:
    """A new model of a file written by `save_model`: see `load_model`."""
    settings, state = _read(path)
    with torch.random.fork_rng(devices=[]):  # what a new model draws is written over
        model = kind(settings)
    model.load_strict(state, str(path))
    return model.eval()


def _load_in_place(
    model: HierarchicalReasoningModel, path: str | Path
) -> HierarchicalReasoningModel:
    """Become the model of a file written by `save_model`: see `load_model`."""
    settings, state = _read(path)
    own, found = (each.network.model_dump() for each in (model.settings, settings))
    differing = differences(own, found, ("this model", "the file"))
    if not differing:
        own, found = _tensors(model.state_dict()), _tensors(state)
        differing = differences(own, found, ("this model", "the file"))
    if differing:
        raise CheckpointInvalid(
            f"{path}: expected the network of this model, which stays as it was: {differing}; "
            "HierarchicalReasoningModel.load_model(path) makes the file's"
        )
    if not any(name.endswith(_SCALE) for name in state):
        model.unquantise()
    model.load_strict(state, str(path))
    torch.clear_autocast_cache()  # of the weights before
    model._follow(settings)
    return model.eval()


def _tensors(state: Mapping[str, Tensor]) -> dict[str, str]:
    """What can be written into each tensor; scales of quantisers come and go."""
    return {
        name: f"{tensor.dtype} {list(tensor.shape)}"
        + " without memory" * tensor.is_meta
        + " of inference mode" * (tensor.is_inference() and not torch.is_inference_mode_enabled())
        for name, tensor in state.items()
        if not name.endswith(_SCALE)
    }


def _in_one(x: ModelInput, z_init: States | None = None) -> tuple[ModelInput, States | None]:
    return x, z_init


def _one_by_one(
    features: Tensor,
    account: Tensor,
    instrument: Tensor,
    timeframe: Tensor,
    z_init: States | None = None,
) -> tuple[ModelInput, States | None]:
    return ModelInput(features, account, instrument, timeframe), z_init


def cycle(
    model: HierarchicalReasoningModel,
    zH_BSD: Tensor,
    zL_BSD: Tensor,
    x_BSD: Tensor,
    timesteps: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """T steps of L under a fixed z_H, then one step of H.

    Returns:
        z_H and z_L [B, S, D]; the residuals of L [B, T] and of H [B]: the root mean square over
        tokens and width of what a step changed.
    """
    residuals = []
    for _ in range(timesteps):
        next_BSD = model.low(zL_BSD, zH_BSD, x_BSD)
        residuals.append(residual(next_BSD, zL_BSD))
        zL_BSD = next_BSD
    next_BSD = model.high(zH_BSD, zL_BSD)
    return next_BSD, zL_BSD, torch.stack(residuals, dim=1), residual(next_BSD, zH_BSD)


def residual(after_BSD: Tensor, before_BSD: Tensor) -> Tensor:
    """[B]: the root mean square of the change of a state."""
    return (after_BSD - before_BSD).square().mean(dim=(1, 2)).sqrt()
