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
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hrm_train.errors import CheckpointInvalid, SettingsInvalid
from hrm_train.network.embedding import InputEmbeddingNetwork
from hrm_train.network.heads import PolicyHead, QHead, QuantityHead, ValueHead
from hrm_train.network.layers import QuantisableLinear
from hrm_train.network.recurrent import HighLevelModule, LowLevelModule
from hrm_train.settings import Settings, parse_settings

Outputs = dict[str, Tensor]
States = tuple[Tensor, Tensor]
"""(zH_BSD, zL_BSD), of widths D_H and D_L."""


class HierarchicalReasoningModel(nn.Module):
    """Two recurrent transformers: H thinks slowly over what L works out quickly.

    `encode`, `low`, `high` and `decode` are the steps; `forward` runs N cycles of T timesteps
    over them, as the trainer and the exporter do with loops of their own.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        network = settings.network
        self.settings = settings
        self.cycles = network.hierarchical.N_cycles
        self.timesteps = network.hierarchical.T_timesteps
        self.reset_l = network.hierarchical.reset_l_module
        self.tokens = 1 + network.input.window // network.input.patch
        self.input_network = InputEmbeddingNetwork(network)
        self.h_module = HighLevelModule(network, self.tokens)
        self.l_module = LowLevelModule(network, self.tokens)
        width, heads = network.h_module.hidden_dim, network.output_heads
        self.dropout = nn.Dropout(heads.dropout)
        self.policy_head = PolicyHead(width, heads)
        self.quantity_head = QuantityHead(width, heads)
        self.value_head = ValueHead(width, heads)
        self.q_head = QHead(width)

    def encode(
        self, features_BWF: Tensor, account_BC: Tensor, instrument_B: Tensor, timeframe_B: Tensor
    ) -> Tensor:
        """The input as tokens, [B, S, D_L]."""
        x_BSD: Tensor = self.input_network(features_BWF, account_BC, instrument_B, timeframe_B)
        return x_BSD

    def low(self, zL_BSD: Tensor, zH_BSD: Tensor, x_BSD: Tensor) -> Tensor:
        """One step of L."""
        next_BSD: Tensor = self.l_module(zL_BSD, zH_BSD, x_BSD)
        return next_BSD

    def high(self, zH_BSD: Tensor, zL_BSD: Tensor) -> Tensor:
        """One step of H."""
        next_BSD: Tensor = self.h_module(zH_BSD, zL_BSD)
        return next_BSD

    def decode(self, zH_BSD: Tensor, account_BC: Tensor) -> Outputs:
        """The four answers, all read from token 0 of z_H."""
        z_BD = self.dropout(zH_BSD[:, 0])
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

    def forward(
        self,
        features: Tensor,
        account: Tensor,
        instrument: Tensor,
        timeframe: Tensor,
        z_init: States | None = None,
    ) -> tuple[Outputs, States]:
        """One segment: N cycles of T timesteps, then the heads.

        Args:
            features: float [B, W, F], rows as `hrm_runtime.market.features` makes them.
            account: float [B, C], as `hrm_runtime.market.account.vector` makes it.
            instrument, timeframe: int64 [B] ids.
            z_init: (z_H, z_L) to continue from, [B, S, D]; the initial states if left out.

        Returns:
            The outputs (`action_type` [B, 5], `quantity` [B], `value` [B], `q_values` [B, 2],
            `l_residual` [B, N, T], `h_residual` [B, N]) and the final (z_H, z_L).
        """
        x_BSD = self.encode(features, account, instrument, timeframe)
        zH_BSD, zL_BSD = self.initialize_states(z_init)
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
        return self.decode(zH_BSD, account) | residuals, (zH_BSD, zL_BSD)

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
        for product in twin.products.values():
            product.input_scale = None
        return twin

    def save_model(self, path: str | Path) -> None:
        """Write weights and settings to one safetensors file."""
        metadata = {"settings": self.settings.model_dump_json()}
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        Path(path).write_bytes(save(state, metadata))

    @classmethod
    def load_model(cls, path: str | Path) -> "HierarchicalReasoningModel":
        """The model of a file written by `save_model`, in eval mode, bit-equal to the saved one.

        Raises:
            CheckpointInvalid: missing or not such a file, or a tensor missing, unknown or of
                another shape than its settings say.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                settings = json.loads((file.metadata() or {})["settings"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            with torch.random.fork_rng(devices=[]):  # what a new model draws is written over
                model = cls(parse_settings(settings, source=str(path)))
        except (OSError, SafetensorError, KeyError, ValueError, SettingsInvalid) as error:
            raise CheckpointInvalid(f"{path}: expected weights of this model: {error}") from error
        model.load_strict(state, str(path))
        return model.eval()

    def load_strict(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load `state`, refusing any difference in names, shapes or types.

        Where it has input scales, quantisers are switched on.

        Raises:
            CheckpointInvalid: naming the tensors that differ, or as `quantise`.
        """
        suffix = ".input_scale"
        scales = {n.removesuffix(suffix): t for n, t in state.items() if n.endswith(suffix)}
        own = {name: (list(t.shape), t.dtype) for name, t in self.state_dict().items()}
        if scales:
            scalar: tuple[list[int], torch.dtype] = ([], self.q_head.logits.weight.dtype)
            own |= {name + suffix: scalar for name in self.products}
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
