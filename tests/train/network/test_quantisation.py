"""Products in integers: exact, calibrated over every step, and trained in to the last bit."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from batch import Batch
from exactly import assert_equal
from folders import content
from safetensors.torch import load_file, save_file
from torch import Tensor
from training_runs import stopped

from hrm_train import (
    HierarchicalReasoningModel,
    extend_vocabulary,
    load_checkpoint,
    load_model,
    train,
)
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split
from hrm_train.errors import CheckpointInvalid, DataInvalid, SettingsInvalid
from hrm_train.judging import judgement
from hrm_train.judging.evaluation import evaluate
from hrm_train.learning import epochs, trainer
from hrm_train.learning.devices import HERE, open_fabric
from hrm_train.learning.plan import CALIBRATION_WINDOWS
from hrm_train.learning.run import Tensors
from hrm_train.network import scales
from hrm_train.network.quantisation import quantise_weight, quantised_linear
from hrm_train.network.scales import BINS, calibrate, scale_of
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]
Floats = npt.NDArray[np.float32]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]

FROM_L, FROM_H = "h_module.from_l", "l_module.from_h"
FIRST_OF_L = "l_module.blocks.0.attention.qkv"
PRODUCTS = {
    f"{module}.{product}"
    for module in ("h_module", "l_module")
    for product in (
        "blocks.0.attention.qkv",
        "blocks.0.attention.out",
        "blocks.0.mlp.gate_up",
        "blocks.0.mlp.down",
    )
} | {FROM_L, FROM_H}


# one product


def graph(x: Floats, weight_OI: Floats, scale: np.float32) -> Floats:
    """What the int8 graph computes: bytes around 128, 32-bit sums, a scale per output."""
    levels = np.clip(np.rint(x / scale) + 128, 0, 255).astype(np.uint8)
    scale_O = np.abs(weight_OI).max(axis=1) / np.float32(64)
    scale_O[scale_O == 0] = 1
    levels_OI = np.rint(weight_OI / scale_O[:, None]).astype(np.int8)
    sums = (levels.astype(np.int32) - 128) @ levels_OI.astype(np.int32).T
    found: Floats = sums.astype(np.float32) * (scale * scale_O)
    return found


def drawn(*shape: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def halves(*shape: int, seed: int) -> Floats:
    """Whole numbers and a half, where rounding could go either way."""
    return np.random.default_rng(seed).integers(-140, 140, shape).astype(np.float32) + 0.5


WEIGHT = drawn(33, 1152, seed=1)
TIES = np.concatenate((halves(8, 1152, seed=2).clip(-63.5, 63.5), np.full((8, 1), 64.0)), axis=1)
ZERO = np.concatenate((np.zeros((1, 1152), np.float32), 1e30 * WEIGHT))


@pytest.mark.parametrize(
    ("x", "weight", "scale"),
    [
        (drawn(4, 11, 1152, seed=3), WEIGHT, 0.0237),
        (drawn(64, 1152, seed=4), WEIGHT, 0.003),  # most are out of range
        (0.25 * halves(16, 1153, seed=5), TIES.astype(np.float32), 0.25),
        (drawn(5, 1152, seed=6), ZERO, 0.02),
    ],
    ids=["a batch of tokens", "clipped", "ties", "an output of nothing"],
)
def test_a_product_is_that_of_the_integer_graph_bit_for_bit(
    x: Floats, weight: Floats, scale: float
) -> None:
    found = quantised_linear(*map(torch.from_numpy, (x, weight)), torch.tensor(scale))
    assert_equal(found, torch.from_numpy(graph(x, weight, np.float32(scale))))


@pytest.mark.parametrize(
    ("times", "reached"), [(1.0, 64), (1e30, 64), (1e-30, 64), (1e-40, 0), (0.0, 0)]
)
def test_weights_are_whole_numbers_that_reach_64_and_no_more(times: float, reached: int) -> None:
    levels, scale = quantise_weight(torch.from_numpy(times * WEIGHT))
    assert_equal(levels, levels.round())
    assert levels.abs().amax(dim=1).tolist() == [reached] * len(WEIGHT)
    assert (scale > 0).all()


def test_a_row_does_not_depend_on_the_others() -> None:
    x, weight = torch.from_numpy(drawn(50, 1152, seed=7)), torch.from_numpy(WEIGHT)
    together = quantised_linear(x, weight, torch.tensor(0.02))
    alone = [quantised_linear(row, weight, torch.tensor(0.02)) for row in x.split(1)]
    assert_equal(together, torch.cat(alone))


def test_the_gradient_passes_rounding_and_stops_where_inputs_are_clipped() -> None:
    x = torch.from_numpy(drawn(6, 40, seed=8)).double().requires_grad_()
    weight = torch.from_numpy(drawn(5, 40, seed=9)).double().requires_grad_()
    given = torch.from_numpy(drawn(6, 5, seed=10)).double()
    scale = torch.tensor(0.01, dtype=torch.float64)
    quantised_linear(x, weight, scale).backward(given)
    with torch.no_grad():
        scale_O = weight.abs().amax(dim=1) / 64
        inside = (x / scale >= -128) & (x / scale <= 127)
        levels = (x / scale).round().clamp(-128, 127)
        levels_OI = (weight / scale_O[:, None]).round()
    assert 0.2 < inside.double().mean() < 0.9
    x_gradient = inside * (given @ (levels_OI * scale_O[:, None]))
    torch.testing.assert_close(x.grad, x_gradient, rtol=1e-12, atol=0)
    torch.testing.assert_close(weight.grad, given.T @ (levels * scale), rtol=1e-12, atol=0)


def test_bfloat16_holds_every_level() -> None:
    x = torch.arange(-128, 128, dtype=torch.float32)[:, None] * 0.5
    weight = torch.full((1, 1), 3.0, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantised_linear(x.bfloat16(), weight, torch.tensor(0.5))
    assert_equal(found.detach(), 3 * x)
    found.sum().backward()
    assert_equal(weight.grad, x.sum().reshape(1, 1))


def test_a_compiled_product_is_the_same_bit_for_bit() -> None:
    compiled = torch.compile(quantised_linear, backend="aot_eager", fullgraph=True)
    results = []
    for function in (quantised_linear, compiled):
        x = torch.from_numpy(drawn(7, 40, seed=11)).requires_grad_()
        weight = torch.from_numpy(drawn(5, 40, seed=12)).requires_grad_()
        found = function(x, weight, torch.tensor(0.01))
        found.square().sum().backward()
        results.append((found, x.grad, weight.grad))
    assert_equal(results[1], results[0])


# scales


def squared_error(values: Floats, scale: float) -> float:
    levels = np.clip(np.rint(values / scale), -128, 127)
    return float(np.square(levels * scale - values, dtype=np.float64).mean())


def scale_for(values: Floats) -> float:
    peak = float(np.abs(values).max())
    counts, _ = np.histogram(np.abs(values), BINS, (0, peak))
    return scale_of(torch.from_numpy(counts), peak)


def test_an_even_spread_is_hardly_clipped() -> None:
    values = np.random.default_rng(1).uniform(-3, 3, 100_000).astype(np.float32)
    assert 127 * scale_for(values) == pytest.approx(3.0, rel=0.01)


def test_a_lone_outlier_is_clipped_as_far_as_it_pays() -> None:
    values = np.append(drawn(100_000, seed=13), np.float32(40.0))
    # the least of (clip / 127)^2 / 12 + (40 - clip)^2 / 100_000
    assert 127 * scale_for(values) == pytest.approx(40 / (1 + 1e5 / (12 * 127**2)), rel=0.01)


@pytest.mark.parametrize("degrees", [3, 5, 30])
def test_no_other_clip_is_off_by_much_less(degrees: int) -> None:
    values = np.random.default_rng(2).standard_t(degrees, 50_000).astype(np.float32)
    peak = np.abs(values).max()
    least = min(squared_error(values, clip / 127) for clip in np.linspace(0.02, 1, 200) * peak)
    assert squared_error(values, scale_for(values)) < 1.03 * least


@pytest.fixture(scope="module")
def inputs(prepared: Prepared, settings: Settings) -> Inputs:
    """70 windows: more than are looked at together."""
    tensors = Tensors(prepared, settings.network.input.window)
    return tensors.inputs(torch.linspace(0, len(prepared) - 1, 70).long())


def test_every_step_of_every_served_segment_counts(
    make_settings: MakeSettings,
    make_model: MakeModel,
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 3
    model = make_model(make_settings({"training.max_segments": most}))
    with torch.no_grad():
        model.q_head.logits.weight.zero_()
        model.q_head.logits.bias.copy_(torch.tensor([-9.0, 9.0]))  # none halts
        model.l_module.from_h.weight.mul_(3.0)
    seen: dict[str, list[Tensor]] = {name: [] for name in (FROM_L, FROM_H, FIRST_OF_L)}
    with torch.inference_mode():
        for batch in zip(*(array.split(64) for array in inputs), strict=True):
            x_BSD = model.encode(*batch)
            zH_BSD, zL_BSD = model.initialize_states()
            for _ in range(most):
                for cycle in range(model.cycles):
                    zL_BSD = zL_BSD if cycle == 0 else model.reset_l_module(zL_BSD)
                    for _ in range(model.timesteps):
                        seen[FROM_H].append(zH_BSD)
                        seen[FIRST_OF_L].append(zL_BSD + model.l_module.from_h(zH_BSD) + x_BSD)
                        zL_BSD = model.low(zL_BSD, zH_BSD, x_BSD)
                    seen[FROM_L].append(zL_BSD)
                    zH_BSD = model.high(zH_BSD, zL_BSD)
    found: list[tuple[Tensor, float]] = []
    monkeypatch.setattr(scales, "scale_of", lambda *given: float(len(found.append(given) or "1")))
    order = list(calibrate(model, *inputs))
    assert set(order) == PRODUCTS
    for name, watched in seen.items():
        values = torch.cat([x.flatten() for x in watched]).abs()
        counts, peak = found[order.index(name)]
        assert peak == pytest.approx(values.max().item(), rel=1e-6)  # added up in other batches
        assert counts.sum() == len(values)
        expected = torch.histc(values, BINS, 0, peak)
        moved = (counts - expected).abs().sum()
        assert moved <= 1e-3 * len(values)  # those on the edge of a bin, added up in other batches
    first, *later = seen[FIRST_OF_L]
    assert max(x.abs().max() for x in later) > 1.1 * first.abs().max()  # there is more to see


def test_scales_are_those_of_the_network_without_quantisers_and_change_nothing(
    model: HierarchicalReasoningModel, inputs: Inputs
) -> None:
    model.train()
    found = calibrate(model, *inputs)
    assert not model.quantised
    assert calibrate(model, *(array.numpy() for array in inputs)) == found
    model.quantise(dict.fromkeys(PRODUCTS, 0.5))
    assert calibrate(model, *inputs) == found
    assert {scale.item() for scale in model.scales.values()} == {0.5}
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_too_few_windows_are_refused(model: HierarchicalReasoningModel, inputs: Inputs) -> None:
    calibrate(model, *(array[:32] for array in inputs))
    message = "expected at least 32 windows to calibrate quantisers on, found 31; give more bars"
    with pytest.raises(DataInvalid, match=message):
        calibrate(model, *(array[:31] for array in inputs))


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (lambda model: model.h_module.blocks[0].mlp.gate_up.weight.zero_(), "0"),
        (lambda model: model.h_module.blocks[0].mlp.gate_up.weight[0, 0].fill_(torch.nan), "nan"),
    ],
)
def test_inputs_that_give_no_scale_are_refused_by_name(
    broken: Callable[[Any], object], found: str, model: HierarchicalReasoningModel, inputs: Inputs
) -> None:
    with torch.no_grad():
        broken(model)
    message = rf"^h_module\..*: expected finite inputs other than 0 .* found a largest of {found};"
    with pytest.raises(DataInvalid, match=message):
        calibrate(model, *inputs)


# a network with quantisers


@pytest.fixture
def quantised(model: HierarchicalReasoningModel, inputs: Inputs) -> HierarchicalReasoningModel:
    model.quantise(calibrate(model, *inputs))
    return model


def test_quantisers_are_on_in_every_recurrent_product_and_nowhere_else(
    model: HierarchicalReasoningModel,
    batch: Batch,
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (model.quantised, model.scales, set(model.products)) == (False, {}, PRODUCTS)
    given = calibrate(model, *inputs)
    model.quantise(given)
    assert model.quantised
    found = model(*batch.inputs)

    def in_integers(product: Any, x: Tensor) -> Tensor:
        (name,) = (name for name, own in model.products.items() if own is product)
        arrays = x.detach().numpy(), product.weight.detach().numpy()
        return torch.from_numpy(graph(*arrays, np.float32(given[name])))

    monkeypatch.setattr(type(model.l_module.from_h), "forward", in_integers)
    assert_equal(found, model(*batch.inputs))


def test_the_twin_without_quantisers_shares_the_weights(
    make_model: MakeModel, settings: Settings, batch: Batch, quantised: HierarchicalReasoningModel
) -> None:
    plain = make_model(settings)
    twin = quantised.without_quantisers()
    assert_equal(twin(*batch.inputs), plain(*batch.inputs))
    assert quantised.quantised
    own = dict(quantised.named_parameters())
    assert all(own[name] is weight for name, weight in twin.named_parameters())


def test_a_quantised_network_is_saved_and_loaded_bit_for_bit(
    quantised: HierarchicalReasoningModel, batch: Batch, tmp_path: Path
) -> None:
    quantised.save_model(tmp_path / "weights.safetensors")
    loaded = load_model(tmp_path / "weights.safetensors")
    assert loaded.quantised
    assert_equal(dict(loaded.state_dict()), dict(quantised.state_dict()))
    assert_equal(loaded(*batch.inputs), quantised(*batch.inputs))


@pytest.mark.parametrize("integers", [True, False])
def test_in_place_the_quantisers_are_those_of_the_file(
    integers: bool,
    make_model: MakeModel,
    settings: Settings,
    batch: Batch,
    quantised: HierarchicalReasoningModel,
    tmp_path: Path,
) -> None:
    plain = make_model(settings)
    source, other = (quantised, plain) if integers else (plain, copy.deepcopy(quantised))
    source.save_model(tmp_path / "weights.safetensors")
    other.load_model(tmp_path / "weights.safetensors")
    assert other.quantised is integers
    assert_equal(dict(other.state_dict()), dict(source.state_dict()))
    assert_equal(other(*batch.inputs), source(*batch.inputs))


FIRST = "h_module.blocks.0.attention.qkv"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(FIRST), f"and no other, found none of {FIRST}"),
        (lambda s: s.update({"a.b": 1.0}), "expected the scale of every .*, found one of a.b"),
        (lambda s: s.clear(), "found none of h_module"),
        (lambda s: s.update({FIRST: 0.0}), f"{FIRST}: expected a scale above 0, found 0.0"),
        (lambda s: s.update({FIRST: -1}), "expected a scale above 0, found -1.0"),
        (lambda s: s.update({FIRST: 1e-50}), "expected a scale above 0, found 0.0"),
        (lambda s: s.update({FIRST: torch.nan}), "expected a scale above 0, found nan"),
        (lambda s: s.update({FIRST: torch.tensor(torch.inf)}), "above 0, found inf"),
        (lambda s: s.update({FIRST: torch.ones(2)}), r"above 0, found \[1.0, 1.0\]"),
    ],
)
def test_scales_that_do_not_fit_are_refused_and_nothing_is_switched(
    change: Callable[[dict[str, Any]], object], message: str, model: HierarchicalReasoningModel
) -> None:
    given: dict[str, Any] = dict.fromkeys(PRODUCTS, 0.5)
    change(given)
    with pytest.raises(CheckpointInvalid, match=f"^scales: .*{message}"):
        model.quantise(given)
    assert not model.quantised


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(f"{FIRST}.input_scale"), "scale: expected ([], torch.float32), found not"),
        (
            lambda s: s.update({f"{FIRST}.input_scale": torch.ones(1)}),
            "input_scale: expected ([], torch.float32), found ([1], torch.float32)",
        ),
        (
            lambda s: s.update({"q_head.input_scale": torch.tensor(1.0)}),
            "q_head.input_scale: expected nothing, found ([], torch.float32)",
        ),
        (
            lambda s: s.update({f"{FIRST}.input_scale": torch.tensor(torch.nan)}),
            f"{FIRST}: expected a scale above 0, found nan",
        ),
        (
            lambda s: s.update({f"{FIRST}.input_scale": torch.tensor(-0.5)}),
            f"{FIRST}: expected a scale above 0, found -0.5",
        ),
    ],
    ids=["one is missing", "of another shape", "of no product", "no number", "negative"],
)
def test_weights_with_damaged_scales_are_refused(
    change: Callable[[dict[str, Tensor]], object],
    message: str,
    quantised: HierarchicalReasoningModel,
    tmp_path: Path,
) -> None:
    state = dict(quantised.state_dict())
    change(state)
    path = tmp_path / "weights.safetensors"
    save_file(state, path, {"settings": quantised.settings.model_dump_json()})
    with pytest.raises(CheckpointInvalid, match=f"weights.safetensors: .*{re.escape(message)}"):
        load_model(path)


# training goes on with quantisers


@pytest.fixture(scope="module")
def short(make_settings: MakeSettings) -> Settings:
    return make_settings(
        {
            "training.epochs": 2,
            "training.batch_size": 150,
            "training.ema_decay": 0.9,
            "training.save_minutes": 0.0,
        }
    )


@pytest.fixture(scope="module")
def tuned(
    short: Settings, tensors: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`trained`, gone on with quantisers."""
    folder = tmp_path_factory.mktemp("tuned") / "checkpoint"
    train(short, tensors, folder, init_from=trained, quantise=True)
    return folder


def test_fine_tuning_keeps_the_scales_that_training_samples_gave_and_changes_the_weights(
    tuned: Path,
    trained: Path,
    tensors: Path,
    prepared: Prepared,
    split: Split,
    short: Settings,
    tmp_path: Path,
) -> None:
    source, found = load_checkpoint(trained), load_checkpoint(tuned)
    assert (source.description.quantised, found.description.quantised) == (False, True)
    every = Tensors(prepared, short.network.input.window)
    assert len(split.train) <= CALIBRATION_WINDOWS
    expected = calibrate(source.model, *every.inputs(torch.from_numpy(split.train)))
    assert {n: s.item() for n, s in found.model.scales.items()} == pytest.approx(expected, rel=1e-6)
    before = dict(source.model.named_parameters())
    for name, product in found.model.products.items():
        assert (product.weight != before[f"{name}.weight"]).any(), name
    last = load_file(tuned / "last.safetensors")
    for of in ("model", "average"):
        for name, scale in found.model.scales.items():
            assert_equal(last[f"{of}/{name}.input_scale"], scale)


def test_what_validates_never_calibrates(
    short: Settings,
    tuned: Path,
    trained: Path,
    prepared: Prepared,
    split: Split,
    tmp_path: Path,
) -> None:
    account = prepared.sample_account.copy()
    account[split.validation, 1:] = 1e3
    replace(prepared, sample_account=account).save(tmp_path / "bars.safetensors")
    data = tmp_path / "bars.safetensors"
    stopped(short, data, tmp_path / "out", 1, init_from=trained, quantise=True)
    begun = load_file(tmp_path / "out" / "last.safetensors")
    for name, scale in load_checkpoint(tuned).model.scales.items():
        assert_equal(begun[f"model/{name}.input_scale"], scale)


def test_epochs_are_judged_and_kept_as_they_would_be_served(
    tuned: Path, prepared: Prepared, split: Split
) -> None:
    found = load_checkpoint(tuned)
    best = found.description.epochs[found.description.best_epoch - 1]
    every = Tensors(prepared, found.settings.network.input.window)
    judged = [
        epochs.evaluate(
            open_fabric(HERE), model, every, split.validation, best.number, best.train_loss
        )
        for model in (found.model, found.model.without_quantisers())
    ]
    assert judged[0] == best
    assert judged[1].validation_loss != best.validation_loss


@pytest.mark.parametrize("quantise", [False, True])
def test_a_quantised_source_stays_quantised_with_its_scales(
    quantise: bool, tuned: Path, prepared: Prepared, make_settings: MakeSettings, tmp_path: Path
) -> None:
    features = 0.5 * prepared.features  # which would give other scales
    replace(prepared, features=features).save(tmp_path / "bars.safetensors")
    found = train(
        make_settings(),
        tmp_path / "bars.safetensors",
        tmp_path / "out",
        init_from=tuned,
        quantise=quantise,
    )
    assert found.description.quantised
    assert_equal(found.model.scales, load_checkpoint(tuned).model.scales)


def test_names_can_be_added_to_a_quantised_network(
    tuned: Path, batch: Batch, tmp_path: Path
) -> None:
    source = load_checkpoint(tuned)
    larger = extend_vocabulary(tuned, tmp_path / "larger", [("Tcs", "5")])
    assert larger.description.quantised
    assert_equal(larger.model.scales, source.model.scales)
    assert_equal(larger.model(*batch.inputs), source.model(*batch.inputs))


def test_a_quantised_checkpoint_is_judged_with_quantisers(
    tuned: Path, tensors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement, "baselines", lambda *_: {})
    (fold,) = evaluate(tuned, tensors).folds
    description = load_checkpoint(tuned).description
    best = description.epochs[description.best_epoch - 1]
    assert fold.judgement.predictors["network"].regret.value == pytest.approx(best.regret, rel=1e-5)


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_run_stopped_and_resumed_writes_the_bytes_of_one_that_was_not(
    after: int, short: Settings, tensors: Path, trained: Path, tuned: Path, tmp_path: Path
) -> None:
    run = (short, tensors, tmp_path / "out")
    stopped(*run, after, init_from=trained, quantise=True)
    train(*run, init_from=trained, quantise=True, resume=True)
    assert content(tmp_path / "out") == content(tuned)


def test_a_run_is_resumed_with_the_quantisers_it_was_begun_with(
    short: Settings, tensors: Path, trained: Path, tuned: Path, tmp_path: Path
) -> None:
    run = (short, tensors, tmp_path / "out")
    stopped(*run, 1, init_from=trained, quantise=True)
    with pytest.raises(CheckpointInvalid, match="quantised: now False, saved True; resume"):
        train(*run, init_from=trained, resume=True)
    # those of a source stay on, whether asked for or not
    stopped(short, tensors, tmp_path / "more", 1, init_from=tuned)
    train(short, tensors, tmp_path / "more", init_from=tuned, quantise=True, resume=True)


def test_there_has_to_be_something_to_quantise(settings: Settings, tmp_path: Path) -> None:
    message = "quantise: expected a checkpoint to go on from, found none; train one first"
    with pytest.raises(SettingsInvalid, match=message):
        train(settings, tmp_path / "absent.csv", tmp_path / "out", quantise=True)
    assert not (tmp_path / "out").exists()


def test_too_few_samples_to_calibrate_on_leave_nothing_written(
    settings: Settings,
    tensors: Path,
    trained: Path,
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = replace(split, train=split.train[:31])
    monkeypatch.setattr(trainer, "chronological_split", lambda *_: few)
    with pytest.raises(DataInvalid, match=r"at least 32 windows to calibrate .*, found 31"):
        train(settings, tensors, tmp_path / "out", init_from=trained, quantise=True)
    assert not (tmp_path / "out").exists()
