"""The schema of `settings.yaml`."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from hrm_runtime.market.columns import HISTORY_BARS, LEAST_HISTORY
from hrm_runtime.market.instruments import UNKNOWN
from hrm_runtime.market.names import SPELLINGS, WEEK, seconds_of
from hrm_train.errors import SettingsInvalid

LARGE_PRODUCT: Final = 2**13
"""Weights of a product; of a smaller one a thread is done before another has begun."""

MANY_THREADS: Final = 2
"""For larger ones. Of four on two cores one waits for another most of the time."""

_EXPONENT: Final = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def _number(value: object) -> object:
    """PyYAML reads 1e-6 as a string: YAML 1.1 wants a dot in a float."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


def _name(value: object) -> object:
    """YAML reads an unquoted 5 as an integer."""
    return str(value) if type(value) is int else value


Name = Annotated[str, BeforeValidator(_name)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A mapping of the file: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Transformer(Section):
    """One of the two recurrent modules."""

    hidden_dim: Count
    num_layers: Count
    num_heads: Count
    ffn_dim: Count
    dropout: Fraction = Field(0.1, description="in training only; the paper uses none")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_dim % (2 * self.num_heads):
            raise ValueError(
                "expected hidden_dim to be an even multiple of num_heads (rotary pairs), "
                f"found {self.hidden_dim} and {self.num_heads}"
            )
        return self


class HModule(Transformer):
    """The slow, strategic module."""

    hidden_dim: Count = Field(512, description="width of a token's state")
    num_layers: Count = 4
    num_heads: Count = 8
    ffn_dim: Count = Field(3072, description="inner width of the SwiGLU; H is read N times a pass")


class LModule(Transformer):
    """The fast, tactical module."""

    hidden_dim: Count = Field(256, description="width of a token's state")
    num_layers: Count = 3
    num_heads: Count = 4
    ffn_dim: Count = Field(1152, description="L is read N x T times: width here costs latency")


class Hierarchical(Section):
    """How often the two modules run."""

    N_cycles: Count = Field(3, description="steps of H")
    T_timesteps: Count = Field(5, description="steps of L per step of H")
    reset_l_module: bool = Field(
        True, description="start each cycle's L from its initial state; the paper does not"
    )
    convergence_threshold: Positive = Field(
        1e-6, description="RMS change of a step under which L has settled; eager inference only"
    )
    max_convergence_steps: Count = Field(
        100, description="steps of L per cycle, at most, when iterating until it has settled"
    )


class Embeddings(Section):
    """Instrument and timeframe tables. Id 0 is whatever was not trained on."""

    instrument_dim: Count = 64
    timeframe_dim: Count = 32
    max_instruments: Count = 1000
    max_timeframes: Count = 10
    initialization: Literal["truncated_normal", "xavier", "he"] = "truncated_normal"
    allow_unknown_instruments: bool = Field(
        False, description="whether the artifact decides for instruments it was not trained on"
    )
    allow_unknown_timeframes: bool = False


class OutputHeads(Section):
    """What the network answers with."""

    action_dim: Literal[5] = Field(5, description="the action space is fixed")
    quantity_min: Annotated[Number, Field(ge=1)] = Field(1.0, description="lots")
    quantity_max: Annotated[Number, Field(le=1e9)] = 100000.0
    value_estimation: Literal[True] = Field(True, description="the graph always has this head")
    q_learning_prep: Literal[True] = Field(True, description="the graph always has this head")
    initial_scale: Positive = Field(
        1.0, description="of the first three heads' first weights; 0.1: rounding moves answers less"
    )
    dropout: Fraction = Field(
        0.0, description="of the state they read, in training only; 0.5 or more: as above"
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.quantity_max <= self.quantity_min:
            raise ValueError(
                "expected quantity_min < quantity_max, "
                f"found {self.quantity_min:g} and {self.quantity_max:g}"
            )
        return self


class Input(Section):
    """What one decision looks at."""

    history_bars: Annotated[int, Field(ge=LEAST_HISTORY)] = Field(
        HISTORY_BARS, description="bars behind each feature row"
    )
    window: Count = Field(50, description="rows the network reads")
    patch: Count = Field(5, description="consecutive rows per token")
    clip: Positive = Field(5.0, description="bound of a standardised feature")

    @property
    def bars_needed(self) -> int:
        """Bars behind one decision, as `hrm_runtime.artifact.contract.Contract.bars_needed`."""
        return self.history_bars + self.window - 1

    @model_validator(mode="after")
    def _patches(self) -> Self:
        if self.window % self.patch:
            raise ValueError(
                f"expected window to be a multiple of patch, found {self.window} and {self.patch}"
            )
        return self


class Network(Section):
    """The Hierarchical Reasoning Model."""

    h_module: HModule = HModule()
    l_module: LModule = LModule()
    hierarchical: Hierarchical = Hierarchical()
    embeddings: Embeddings = Embeddings()
    output_heads: OutputHeads = OutputHeads()
    input: Input = Input()

    @property
    def tokens(self) -> int:
        """Of a state: one of context, and one of each patch of rows."""
        return 1 + self.input.window // self.input.patch


class Training(Section):
    """Labels, accounts, losses and the optimiser."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    epochs: Count = 20
    batch_size: Count = Field(256, description="samples in work at once, over all processes")
    learning_rate: Annotated[Number, Field(gt=0, le=1)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = Field(200, description="linear, then constant")
    weight_decay: Annotated[Number, Field(ge=0)] = Field(
        0.1, description="of matrices; tables and biases do not decay"
    )
    clip_norm: Annotated[Number, Field(ge=0)] = Field(
        1.0, description="largest norm of the gradient; 0 is no limit"
    )
    ema_decay: Fraction = Field(
        0.0, description="0.999: validate and export an average of the last 1000 steps; 0 is off"
    )
    gradient: Literal["one_step", "last_cycle", "full"] = Field(
        "one_step", description="steps of a segment it goes through: the last, last_cycle or full"
    )
    threads: Count | None = Field(
        None, description="on a CPU; null: as many as pay for the size of the network, 1 or 2"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "bf16", description="of products on a GPU; a CPU computes in fp32"
    )
    compile: bool = Field(
        True, description="on a GPU, compile the steps of H and L: a minute once, then faster"
    )
    deterministic: bool = Field(
        True, description="on a GPU too, the same seed gives the same weights; costs speed there"
    )
    max_segments: Count = Field(
        2, description="passes per sample, an optimizer step each; also at most per decision"
    )
    min_segments: Count = Field(1, description="passes before a sample may halt by itself")
    exploration: Fraction = Field(
        0.1, description="share of samples that may not halt before a random pass, 2 or later"
    )
    halting_weight: Annotated[Number, Field(ge=0)] = 0.5
    save_minutes: Annotated[Number, Field(ge=0)] = Field(
        10.0, description="of work lost at most when killed; 0 saves after every step"
    )
    validation_fraction: Annotated[Number, Field(gt=0, lt=1)] = Field(
        0.2, description="the last part of the time span, after an embargo of the label horizon"
    )
    label_horizon: Annotated[int, Field(ge=2)] = Field(24, description="bars a label looks ahead")
    label_capital: Positive = Field(
        1000000.0, description="currency; spreads the brokerage of a label over its lots"
    )
    policy_temperature: Positive = Field(
        0.5, description="ATR of regret that divides a target probability by e"
    )
    value_weight: Annotated[Number, Field(ge=0)] = 0.1
    quantity_weight: Annotated[Number, Field(ge=0)] = 0.3
    risk_fraction: Annotated[Number, Field(gt=0, lt=1)] = Field(
        0.01, description="of the capital, lost if the stop is hit: sizes the quantity target"
    )
    capital_min: Positive = Field(50000.0, description="synthesised accounts, log-uniform")
    capital_max: Positive = 10000000.0
    unknown_probability: Fraction = Field(
        0.05, description="an instrument or timeframe is hidden from the network this often"
    )

    @model_validator(mode="after")
    def _segments(self) -> Self:
        if self.min_segments > self.max_segments:
            raise ValueError(
                "expected min_segments <= max_segments, "
                f"found {self.min_segments} and {self.max_segments}"
            )
        return self

    @model_validator(mode="after")
    def _capitals(self) -> Self:
        if self.capital_max < self.capital_min:
            raise ValueError(
                "expected capital_min <= capital_max, "
                f"found {self.capital_min:g} and {self.capital_max:g}"
            )
        return self


class TradingRules(Section):
    """Costs, and the distances of stop and target."""

    cost_fraction: Fraction = Field(0.0002, description="of the price, per execution")
    brokerage_entry: Annotated[Number, Field(ge=0)] = Field(25.0, description="currency per order")
    brokerage_exit: Annotated[Number, Field(ge=0)] = 35.0
    stop_atr: Positive = Field(1.5, description="ATR at entry")
    target_atr: Positive = Field(3.0, description="of rules that have one; ours have none")


class InstrumentFacts(Section):
    """Facts of one instrument, by name."""

    type: Literal["index", "stock"] = Field(
        "stock", description="a stock trades at its price, an index through options"
    )
    lot_size: Count = Field(1, description="units per lot")
    tick_size: Positive = Field(0.05, description="smallest step of the price, currency")
    option_premium_range: tuple[Positive, Positive] = Field(
        (0.025, 0.05), description="of the index, what an option costs; no meaning for a stock"
    )

    @model_validator(mode="before")
    @classmethod
    def _tuple(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("option_premium_range"), list):
            return {**data, "option_premium_range": tuple(data["option_premium_range"])}
        return data

    @model_validator(mode="after")
    def _range(self) -> Self:
        low, high = self.option_premium_range
        if low > high:
            raise ValueError(f"expected option_premium_range [low, high], found [{low}, {high}]")
        return self


class TimeframeFacts(Section):
    """Length of one timeframe, by name."""

    seconds: Count = Field(description="from the opening of a bar to that of the next")

    @field_validator("seconds")
    @classmethod
    def _has_a_length(cls, seconds: int) -> int:
        if seconds > WEEK:
            raise ValueError(
                f"expected at most {WEEK} (a week), found {seconds}: months and years have no "
                "length of their own; train on weeks or days"
            )
        return seconds


class Settings(Section):
    """The whole file."""

    hierarchical_reasoning_model: Network = Network()
    training: Training = Training()
    trading: TradingRules = TradingRules()
    instruments: dict[Name, InstrumentFacts] = Field(
        {},
        description=f"facts by name; a name not listed gets those of {UNKNOWN!r}",
        examples=[
            {"Nifty": InstrumentFacts(type="index", lot_size=75, option_premium_range=(0.01, 0.02))}
        ],
    )
    timeframes: dict[Name, TimeframeFacts] = Field(
        {},
        description=f"needed for names that say no length, as {SPELLINGS} do",
        examples=[{"W": TimeframeFacts(seconds=604_800)}],
    )

    @property
    def network(self) -> Network:
        """The network's section."""
        return self.hierarchical_reasoning_model

    @property
    def threads(self) -> int:
        """Threads to compute with on a CPU: as set, or as many as pay for the network's size.

        Nothing else decides: sums depend on the number, and with it the weights.
        """
        largest = max(
            module.hidden_dim * module.ffn_dim
            for module in (self.network.h_module, self.network.l_module)
        )
        return self.training.threads or (MANY_THREADS if largest >= LARGE_PRODUCT else 1)

    def with_threads(self) -> Self:
        """The same, with the number of threads written down."""
        training = self.training.model_copy(update={"threads": self.threads})
        return self.model_copy(update={"training": training})

    def instrument_facts(self, name: str) -> InstrumentFacts:
        """Facts of `name`, those of `unknown` where it is not declared."""
        return self.instruments.get(name) or self.instruments.get(UNKNOWN) or InstrumentFacts()

    def seconds(self, timeframe: str) -> int:
        """Length of a bar of `timeframe`: as declared, or as its name says.

        Raises:
            SettingsInvalid: neither.
        """
        if timeframe in self.timeframes:
            return self.timeframes[timeframe].seconds
        seconds = seconds_of(timeframe)
        if seconds is not None:
            return seconds
        raise SettingsInvalid(
            f"timeframes.{timeframe}: expected its seconds to be declared, a week at most, or a "
            f"name such as {SPELLINGS}, since {timeframe!r} says no length"
        )
