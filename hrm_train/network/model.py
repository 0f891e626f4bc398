"""The network, in dependency order. The model owns the steps; callers own the loop.

Source of the equations: "Hierarchical Reasoning Model", arXiv 2506.21734. Where this network
follows it and where it departs is in docs/model.md.

Suffixes of tensors give their shape:

    B batch     W window rows    F features of a row    P patches    C account values
    S tokens    D state width    A attention heads      K head width
    N cycles    T timesteps      I identity: instrument and timeframe
"""

import copy
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hrm_runtime.market.actions import ILLEGAL_LOGIT, LEGAL, Action, Side
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_train.errors import CheckpointInvalid, SettingsInvalid
from hrm_train.network.quantisation import quantised_linear
from hrm_train.settings import (
    Embeddings,
    Network,
    OutputHeads,
    Settings,
    Transformer,
    parse_settings,
)

RMS_EPSILON: Final = 1e-5
ROPE_BASE: Final = 10_000.0
ROWS_TOGETHER: Final = 8
_TRUNCATED_STD: Final = 0.87962566103423978
"""Standard deviation of a unit normal truncated at 2."""

Outputs = dict[str, Tensor]
States = tuple[Tensor, Tensor]
"""(zH_BSD, zL_BSD), of widths D_H and D_L."""


def truncated_normal_(weight: Tensor, std: float) -> Tensor:
    """Fill with a normal truncated at two deviations, scaled to have `std` after truncation."""
    scale = std / _TRUNCATED_STD
    return nn.init.trunc_normal_(weight, std=scale, a=-2 * scale, b=2 * scale)


class Linear(nn.Linear):
    """A linear map without bias, initialised truncated LeCun normal (std 1 / sqrt(fan_in))."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weight."""
        truncated_normal_(self.weight, 1.0 / math.sqrt(self.in_features))


class QuantisableLinear(Linear):
    """A product of the recurrence, in integers where its quantiser is on.

    Attributes:
        input_scale: scalar, the step between two levels of the input; None where it is off.
    """

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out)
        self.register_buffer("input_scale", None)
        self.input_scale: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """[..., fan_in] to [..., fan_out]."""
        if self.input_scale is None:
            return super().forward(x)
        return quantised_linear(x, self.weight, self.input_scale)


def rms_norm(x_BSD: Tensor) -> Tensor:
    """X / RMS(x) over the width, without a learned scale."""
    return F.rms_norm(x_BSD, (x_BSD.shape[-1],), eps=RMS_EPSILON)


class RotaryEmbedding(nn.Module):
    """cos and sin of the rotation of each token and frequency (RoPE, arXiv 2104.09864)."""

    def __init__(self, tokens: int, head_dim: int) -> None:
        super().__init__()
        frequencies = ROPE_BASE ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angles_SK = torch.outer(torch.arange(tokens, dtype=torch.float64), frequencies).repeat(1, 2)
        self.register_buffer("cos_SK", angles_SK.cos(), persistent=False)
        self.register_buffer("sin_SK", angles_SK.sin(), persistent=False)
        self.cos_SK: Tensor
        self.sin_SK: Tensor

    def forward(self, x_BASK: Tensor) -> Tensor:
        """Rotate pairs (k, k + K/2) of every head."""
        first, second = x_BASK.chunk(2, dim=-1)
        turned_BASK = torch.cat((-second, first), dim=-1)
        return x_BASK * self.cos_SK.to(x_BASK) + turned_BASK * self.sin_SK.to(x_BASK)


def attend(q_BASK: Tensor, k_BASK: Tensor, v_BASK: Tensor) -> Tensor:
    """Each row's tokens attend to those of the same row.

    A GPU's kernels work on tiles of many more tokens than a row has: there, rows are laid side by
    side, each masked from the others, which takes a fifth of the time with gradient.
    """
    if q_BASK.is_cuda and q_BASK.shape[0] % ROWS_TOGETHER == 0:
        return attend_side_by_side(q_BASK, k_BASK, v_BASK)
    return F.scaled_dot_product_attention(q_BASK, k_BASK, v_BASK)


def attend_side_by_side(q_BASK: Tensor, k_BASK: Tensor, v_BASK: Tensor) -> Tensor:
    """Attention of `ROWS_TOGETHER` rows at a time, as one of all their tokens."""
    q, k, v = (
        x_BASK.unflatten(0, (-1, ROWS_TOGETHER)).transpose(1, 2).flatten(2, 3)
        for x_BASK in (q_BASK, k_BASK, v_BASK)
    )
    tokens = q_BASK.shape[2]
    row = torch.arange(ROWS_TOGETHER, device=q.device).repeat_interleave(tokens)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=row[:, None] == row)
    apart: Tensor = mixed.unflatten(2, (ROWS_TOGETHER, tokens)).transpose(1, 2)
    return apart.flatten(0, 1)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, non-causal."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = QuantisableLinear(config.hidden_dim, 3 * config.hidden_dim)
        self.out = QuantisableLinear(config.hidden_dim, config.hidden_dim)

    def forward(self, x_BSD: Tensor, rotary: RotaryEmbedding) -> Tensor:
        """Mix tokens."""
        q_BASK, k_BASK, v_BASK = (
            part_BSD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part_BSD in self.qkv(x_BSD).chunk(3, dim=-1)
        )
        mixed_BASK = attend(rotary(q_BASK), rotary(k_BASK), v_BASK)
        mixed_BSD: Tensor = self.out(mixed_BASK.transpose(1, 2).flatten(-2))
        return mixed_BSD


class SwiGLU(nn.Module):
    """Gated feed-forward: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.gate_up = QuantisableLinear(config.hidden_dim, 2 * config.ffn_dim)
        self.down = QuantisableLinear(config.ffn_dim, config.hidden_dim)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Transform each token by itself."""
        gate, up = self.gate_up(x_BSD).chunk(2, dim=-1)
        out_BSD: Tensor = self.down(F.silu(gate) * up)
        return out_BSD


class Block(nn.Module):
    """Post-norm: the residual stream itself is normalised, so states stay bounded."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp = SwiGLU(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BSD: Tensor, rotary: RotaryEmbedding) -> Tensor:
        """One layer."""
        x_BSD = rms_norm(x_BSD + self.dropout(self.attention(x_BSD, rotary)))
        return rms_norm(x_BSD + self.dropout(self.mlp(x_BSD)))


class RecurrentModule(nn.Module):
    """A stack of blocks applied to its own state plus what is injected, by addition.

    Attributes:
        initial_D: the state every token starts from, drawn once and never trained.
    """

    def __init__(self, config: Transformer, tokens: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.rotary = RotaryEmbedding(tokens, config.hidden_dim // config.num_heads)
        self.register_buffer("initial_D", truncated_normal_(torch.empty(config.hidden_dim), 1.0))
        self.initial_D: Tensor

    def step(self, z_BSD: Tensor, injected_BSD: Tensor) -> Tensor:
        """The next state."""
        x_BSD = z_BSD + injected_BSD
        for block in self.blocks:
            x_BSD = block(x_BSD, self.rotary)
        return x_BSD


def join(width_in: int, width_out: int) -> nn.Module:
    """What brings one module's state to the other's width: nothing, where they are equal."""
    return nn.Identity() if width_in == width_out else QuantisableLinear(width_in, width_out)


class HighLevelModule(RecurrentModule):
    """H: z_H <- f_H(z_H + z_L), once per cycle."""

    def __init__(self, network: Network, tokens: int) -> None:
        super().__init__(network.h_module, tokens)
        self.from_l = join(network.l_module.hidden_dim, network.h_module.hidden_dim)

    def forward(self, zH_BSD: Tensor, zL_BSD: Tensor) -> Tensor:
        """One strategic step, from the state L settled in."""
        return self.step(zH_BSD, self.from_l(zL_BSD))


class LowLevelModule(RecurrentModule):
    """L: z_L <- f_L(z_L + z_H + x), T times per cycle."""

    def __init__(self, network: Network, tokens: int) -> None:
        super().__init__(network.l_module, tokens)
        self.from_h = join(network.h_module.hidden_dim, network.l_module.hidden_dim)

    def forward(self, zL_BSD: Tensor, zH_BSD: Tensor, x_BSD: Tensor) -> Tensor:
        """One tactical step, under the guidance of H and the input."""
        return self.step(zL_BSD, self.from_h(zH_BSD) + x_BSD)


INITIALIZATIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "truncated_normal": partial(truncated_normal_, std=1.0),
    "xavier": nn.init.xavier_normal_,
    "he": nn.init.kaiming_normal_,
}


class VocabularyEmbedding(nn.Embedding):
    """A table of 1 + `most` rows; row 0 stands for everything unknown.

    `initialization` says how it is drawn and with what deviation: `truncated_normal` 1, `xavier`
    sqrt(2 / (rows + width)) (Glorot and Bengio, 2010), `he` sqrt(2 / width) (arXiv 1502.01852);
    the last two are not truncated.
    """

    def __init__(self, most: int, width: int, initialization: str) -> None:
        self.initialization = initialization  # the table is drawn while it is made
        super().__init__(1 + most, width)

    def reset_parameters(self) -> None:
        """Draw the table."""
        INITIALIZATIONS[self.initialization](self.weight)


class InstrumentEmbedding(VocabularyEmbedding):
    """One learned vector per instrument."""

    def __init__(self, config: Embeddings) -> None:
        super().__init__(config.max_instruments, config.instrument_dim, config.initialization)


class TimeframeEmbedding(VocabularyEmbedding):
    """One learned vector per timeframe."""

    def __init__(self, config: Embeddings) -> None:
        super().__init__(config.max_timeframes, config.timeframe_dim, config.initialization)


class Standardise(nn.Module):
    """(x - mean) / std with the frozen statistics of the training part, clipped.

    Attributes:
        mean, std: [width], set once before training.
    """

    def __init__(self, width: int, clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; the last axis is the width."""
        return ((x - self.mean) / self.std).clamp(-self.clip, self.clip)


class InputEmbeddingNetwork(nn.Module):
    """Standardise with frozen statistics, cut the window into patches, make tokens.

    Token 0 is context (who, what bar length, account); the others are patches of consecutive
    rows, oldest first, each told who and what bar length.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        width, config = network.l_module.hidden_dim, network.input
        identity = network.embeddings.instrument_dim + network.embeddings.timeframe_dim
        self.patch = config.patch
        self.instrument_embedding = InstrumentEmbedding(network.embeddings)
        self.timeframe_embedding = TimeframeEmbedding(network.embeddings)
        self.context = Linear(identity + len(ACCOUNT), width)
        self.patches = Linear(config.patch * len(FEATURES) + identity, width)
        self.features = Standardise(len(FEATURES), config.clip)
        self.account = Standardise(len(ACCOUNT), config.clip)

    def forward(
        self, features_BWF: Tensor, account_BC: Tensor, instrument_B: Tensor, timeframe_B: Tensor
    ) -> Tensor:
        """x~: the tokens L reads at every step, [B, S, D_L]."""
        patches_BPF = (
            self.features(features_BWF).unflatten(1, (-1, self.patch)).flatten(2)
        )  # F: of all its rows
        identity_BI = torch.cat(
            (self.instrument_embedding(instrument_B), self.timeframe_embedding(timeframe_B)), dim=-1
        )
        context_BD = self.context(torch.cat((identity_BI, self.account(account_BC)), dim=-1))
        identity_BPI = identity_BI[:, None].expand(-1, patches_BPF.shape[1], -1)
        patches_BPD = self.patches(torch.cat((patches_BPF, identity_BPI), dim=-1))
        return torch.cat((context_BD[:, None], patches_BPD), dim=1)


def answer(width: int, size: int, config: OutputHeads) -> nn.Linear:
    """A linear map from the state to an answer, with a bias of 0."""
    linear = nn.Linear(width, size)
    truncated_normal_(linear.weight, config.initial_scale / math.sqrt(width))
    nn.init.zeros_(linear.bias)
    return linear


class PolicyHead(nn.Module):
    """Logits of the five actions; those illegal on the account's side are exactly -1e4."""

    def __init__(self, width: int, config: OutputHeads) -> None:
        super().__init__()
        self.logits = answer(width, len(Action), config)
        illegal = torch.ones(len(Side), len(Action), dtype=torch.bool)
        for side, actions in LEGAL.items():
            illegal[side + 1, list(actions)] = False
        self.register_buffer("illegal", illegal, persistent=False)  # rows: short, flat, long
        self.illegal: Tensor

    def forward(self, z_BD: Tensor, side_B: Tensor) -> Tensor:
        """[B, 5], from the side as -1, 0 or 1."""
        illegal_B5 = self.illegal[1 + side_B.clamp(-1, 1).round().long()]
        return torch.where(illegal_B5, ILLEGAL_LOGIT, self.logits(z_BD))


class QuantityHead(nn.Module):
    """Lots on a log scale between two bounds."""

    def __init__(self, width: int, config: OutputHeads) -> None:
        super().__init__()
        self.position = answer(width, 1, config)
        self.log_min, self.log_max = math.log(config.quantity_min), math.log(config.quantity_max)
        self.bounds = (config.quantity_min, config.quantity_max)

    def forward(self, z_BD: Tensor) -> Tensor:
        """[B], lots."""
        position_B = torch.sigmoid(self.position(z_BD).squeeze(-1))
        log_lots_B = self.log_min + position_B * (self.log_max - self.log_min)
        return log_lots_B.exp().clamp(*self.bounds)


class ValueHead(nn.Module):
    """Best return over the label horizon, in ATR."""

    def __init__(self, width: int, config: OutputHeads) -> None:
        super().__init__()
        self.value = answer(width, 1, config)

    def forward(self, z_BD: Tensor) -> Tensor:
        """[B]."""
        value_B: Tensor = self.value(z_BD).squeeze(-1)
        return value_B


class QHead(nn.Module):
    """Values of halting and of continuing. Starts at 0 weight and -5 bias, as published."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, 2)
        nn.init.zeros_(self.logits.weight)
        nn.init.constant_(self.logits.bias, -5.0)

    def forward(self, z_BD: Tensor) -> Tensor:
        """[B, 2] in [0, 1]: halt, continue."""
        return torch.sigmoid(self.logits(z_BD))


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
