import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hrm_runtime import (
    ArtifactDamaged,
    Contract,
    ContractInvalid,
    DoNotStart,
    UnsupportedFormat,
)
from hrm_runtime.artifact.contract import (
    CONTRACT,
    FORMAT_VERSION,
    Flip,
    GapBand,
    Growth,
    Stage,
    read_contract,
)
from hrm_runtime.artifact.schema import canonical, seal
from hrm_runtime.market.instruments import UNKNOWN

Document = dict[str, Any]


@pytest.fixture(scope="module")
def text(artifact: Path) -> bytes:
    """The frozen contract, as it is written."""
    return (artifact / CONTRACT).read_bytes()


def edited(text: bytes, edit: Callable[[Document], object]) -> bytes:
    """`text` with an edit that its digest does not know of, otherwise in canonical form."""
    document = json.loads(text)
    edit(document)
    return f"{json.dumps(document, sort_keys=True, indent=2)}\n".encode()


# writing and reading


def test_the_frozen_contract_is_written_back_byte_for_byte(text: bytes) -> None:
    assert canonical(read_contract(text)) == text


def test_what_was_sealed_reads_back_equal(contract: Contract) -> None:
    flip = Flip(window=3, what="action", gap=1e-5)
    band = GapBand(above=0.01, windows=7, same_action=6, same_decision=5)
    growth = Growth(z_L=((1e-7, 2e-7), (0.0, 3e-7)), z_H=(1e-8, 2.5e-8))
    stage = replace(
        contract.parity[0], flips=(flip,), action_agreement=0.999, by_gap=(band,), growth=growth
    )
    listed = {name: replace(o, tolerance=None) for name, o in stage.outputs.items()}
    other = replace(
        contract,
        digest="whatever it was",
        name="Näme with “free” text",
        allow_unknown_instrument=True,
        max_segments=4,
        graph=replace(contract.graph, precision="int8", input_scales={"l_module.from_h": 0.0125}),
        parity=(stage, replace(stage, outputs=listed, gated=False, passed=False, growth=None)),
    )
    read = read_contract(seal(other))
    assert replace(read, digest="") == replace(other, digest="")


def test_the_canonical_form_is_sorted_indented_utf8_with_a_final_newline(text: bytes) -> None:
    document = json.loads(text)
    written = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert text == written.encode("utf-8")


def test_the_digest_is_that_of_the_text_with_an_empty_digest(text: bytes) -> None:
    digest = json.loads(text)["digest"]
    emptied = text.replace(digest.encode(), b"")
    assert hashlib.sha256(emptied).hexdigest() == digest


# damage


def test_a_changed_byte_of_any_value_is_refused(text: bytes) -> None:
    """The last letter or digit of a line is its value's, and its neighbour in ASCII is another."""
    last = [match.start() for match in re.finditer(rb"\w(?=\W*$)", text, re.MULTILINE)]
    assert len(last) > 400
    assert [offset for offset in last if not refused(text, offset, 0x01)] == []


@pytest.mark.parametrize(
    ("pattern", "mask"),
    [(rb"(?<=\d)e(?=-\d)", 0x20), (rb"(?<=:) ", 0x2A), (rb" (?= )", 0x29)],
    ids=["the case of an exponent", "a new line for a space", "a tab for a space"],
)
def test_a_changed_byte_that_means_nothing_is_refused(
    text: bytes, pattern: bytes, mask: int
) -> None:
    offsets = [match.start() for match in re.finditer(pattern, text)]
    assert len(offsets) > 30
    assert [
        offset for offset in offsets[:: len(offsets) // 30] if not refused(text, offset, mask)
    ] == []


@pytest.mark.parametrize("mask", [0x01, 0x14, 0x20, 0x80, 0xFF], ids=hex)
def test_a_changed_byte_anywhere_is_refused(text: bytes, mask: int) -> None:
    offsets = range(mask % 71, len(text), 71)
    assert [offset for offset in offsets if not refused(text, offset, mask)] == []


def refused(text: bytes, offset: int, mask: int) -> bool:
    damaged = bytearray(text)
    damaged[offset] ^= mask
    try:
        read_contract(bytes(damaged))
    except DoNotStart:
        return True
    return False


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"h_residual": 0.0001', b'"h_residual": 1e905'),
        (b'"artifact-1"', rb'"\ud800"'),
    ],
    ids=["an infinity", "half a character"],
)
def test_what_has_no_canonical_form_is_damage(text: bytes, old: bytes, new: bytes) -> None:
    assert text.count(old) == 1
    with pytest.raises(ArtifactDamaged, match="expected its canonical form, found what has none"):
        read_contract(text.replace(old, new))


@pytest.mark.parametrize(
    "damaged",
    [b"", b"not JSON", b"\xff\xfe", b"{", b'{"a": NaN}', b"[" * 100_000],
    ids=["empty", "text", "binary", "cut off", "NaN", "too deep"],
)
def test_what_is_not_json_is_damage(damaged: bytes) -> None:
    with pytest.raises(ArtifactDamaged, match="expected canonical JSON, found something else"):
        read_contract(damaged)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text + b"\n",
        lambda text: text.rstrip(b"\n"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: json.dumps(json.loads(text), sort_keys=True).encode(),
        lambda text: text.replace(b'"max_segments": 2', b'"max_segments":  2'),
        lambda text: text.replace(b"100000.0", b"100000"),
        lambda text: text.replace(b'{\n  "account"', b'{\n  "digest": "",\n  "account"'),
    ],
    ids=["newline", "no newline", "CR", "one line", "space", "integer", "twice"],
)
def test_another_writing_of_the_same_contract_is_damage(
    text: bytes, rewrite: Callable[[bytes], bytes]
) -> None:
    assert rewrite(text) != text
    with pytest.raises(ArtifactDamaged, match=r"canonical form; it was edited or damaged"):
        read_contract(rewrite(text))


def test_converted_line_ends_are_damage_that_says_how_to_mend_it(
    text: bytes, contract: Contract
) -> None:
    converted = text.replace(b"\n", b"\r\n")
    message = (
        "contract.json: expected lines that end in LF, as they were written, found CRLF: git "
        "(core.autocrlf), an FTP client or an editor converted them. In git, add the line "
        "`contract.json -text` to .gitattributes, delete the file and `git checkout` it; elsewhere "
        "copy it again, as binary"
    )
    for found in (converted, converted.replace(b"\r\n", b"\n", 10)):
        with pytest.raises(ArtifactDamaged, match=f"^{re.escape(message)}$"):
            read_contract(found)


def test_what_was_changed_otherwise_too_is_plain_damage(text: bytes, contract: Contract) -> None:
    converted = text.replace(b"\n", b"\r\n")
    with pytest.raises(ArtifactDamaged, match=r"canonical form; it was edited or damaged"):
        read_contract(converted.replace(b'"max_segments": 2', b'"max_segments":  2'))
    renamed = canonical(replace(contract, name="another")).replace(b"\n", b"\r\n")
    with pytest.raises(ArtifactDamaged, match=f"expected digest {contract.digest}, found"):
        read_contract(renamed)


def test_a_wrong_digest_is_damage_and_both_are_named(text: bytes, contract: Contract) -> None:
    other = replace(contract, name="another")
    expected = json.loads(seal(other))["digest"]
    with pytest.raises(
        ArtifactDamaged, match=f"expected digest {contract.digest}, found {expected}"
    ):
        read_contract(canonical(other))


# versions and types


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused_naming_both(text: bytes, version: object) -> None:
    changed = edited(text, lambda document: document.update(format_version=version))
    with pytest.raises(
        UnsupportedFormat, match=rf"reads format version {FORMAT_VERSION}, found {version!r};"
    ):
        read_contract(changed)


@pytest.mark.parametrize("document", [b"{}", b"[]", b"null", b"1"])
def test_a_document_without_a_format_version_is_unsupported(document: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="reads format version 1, found None"):
        read_contract(document)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("trading"), "trading: expected, but missing"),
        (lambda d: d["graph"].pop("opset"), r"graph\.opset: expected, but missing"),
        (lambda d: d["instruments"]["Alpha"].pop("id"), r"instruments\.Alpha\.id: expected, but"),
        (lambda d: d.update(more=1), "more: unknown; expected only format_version, digest"),
        (lambda d: d["quantity"].update(typical=2), r"quantity\.typical: unknown; expected only"),
        (lambda d: d["graph"].update(h_dim="16"), r"graph\.h_dim: expected an integer, found '16'"),
        (lambda d: d["graph"].update(reset_l=1), r"graph\.reset_l: expected true or false"),
        (
            lambda d: d["graph"].update(precision="fp8"),
            r"graph\.precision: expected 'fp32' or 'fp16' or 'int8', found 'fp8'",
        ),
        (lambda d: d["graph"].pop("input_scales"), r"graph\.input_scales: expected, but missing"),
        (
            lambda d: d["graph"].update(input_scales={"l_module.from_h": "1"}),
            r"graph\.input_scales\.l_module\.from_h: expected a number, found '1'",
        ),
        (lambda d: d["tolerances"].update(value=None), r"tolerances\.value: expected a number"),
        (lambda d: d["features"].update(names="sma_5"), r"features\.names: expected a list"),
        (
            lambda d: d["provenance"].pop("trained_until"),
            r"provenance\.trained_until: expected, but missing",
        ),
        (
            lambda d: d.update(format_version=True),
            "format_version: expected an integer, found True",
        ),
        (
            lambda d: d["instruments"]["Alpha"].update(type="bond"),
            r"instruments\.Alpha\.type: expected 'index' or 'stock', found 'bond'",
        ),
        (
            lambda d: d["parity"][0]["outputs"]["value"].pop("max_abs"),
            r"parity\[0\]\.outputs\.value\.max_abs: expected, but missing",
        ),
        (
            lambda d: d["parity"][0]["outputs"]["value"].update(tolerance="any"),
            r"parity\[0\]\.outputs\.value\.tolerance: expected a number, found 'any'",
        ),
        (lambda d: d["parity"][0].pop("gated"), r"parity\[0\]\.gated: expected, but missing"),
        (
            lambda d: d["parity"][0]["by_gap"][2].pop("same_action"),
            r"parity\[0\]\.by_gap\[2\]\.same_action: expected, but missing",
        ),
        (
            lambda d: d["parity"][1]["growth"].update(z_L=[0.1, 0.2]),
            r"parity\[1\]\.growth\.z_L\[0\]: expected a list, found 0.1",
        ),
    ],
)
def test_a_missing_unknown_or_mistyped_field_is_named_by_its_path(
    text: bytes, edit: Callable[[Document], object], message: str
) -> None:
    with pytest.raises(ContractInvalid, match=rf"^contract\.json: {message}"):
        read_contract(edited(text, edit))


# agreement with itself and with this library


def features(**changes: Any) -> Callable[[Contract], Contract]:
    return lambda c: replace(c, features=replace(c.features, **changes))


def renamed(edit: Callable[[list[str]], object]) -> Callable[[Contract], Contract]:
    """The contract with its feature names edited."""

    def change(contract: Contract) -> Contract:
        names = list(contract.features.names)
        edit(names)
        return features(names=tuple(names))(contract)

    return change


def instrument(name: str = "Alpha", **facts: Any) -> Callable[[Contract], Contract]:
    return lambda c: replace(
        c, instruments={**c.instruments, name: replace(c.instruments["Alpha"], **facts)}
    )


def timeframe(name: str = "5", **facts: Any) -> Callable[[Contract], Contract]:
    return lambda c: replace(
        c, timeframes={**c.timeframes, name: replace(c.timeframes["5"], **facts)}
    )


def part(name: str, **changes: Any) -> Callable[[Contract], Contract]:
    return lambda c: replace(c, **{name: replace(getattr(c, name), **changes)})


def stages(change: Callable[[Stage], Stage]) -> Callable[[Contract], Contract]:
    """The contract with each stage of its parity changed."""
    return lambda c: replace(c, parity=tuple(map(change, c.parity)))


def outputs(**changes: Any) -> Callable[[Stage], Stage]:
    """A stage with fields of one of its outputs changed."""
    return lambda s: replace(
        s, outputs={**s.outputs, "value": replace(s.outputs["value"], **changes)}
    )


def int8(worst: float = 0.5, **scales: float) -> Callable[[Contract], Contract]:
    """The contract of integer products, with a tolerance."""
    return lambda c: replace(
        c,
        graph=replace(c.graph, precision="int8", input_scales=scales),
        tolerances={**c.tolerances, "z_H_out": worst},
    )


IDS = "instruments: expected ids once each, 0 for 'unknown'"
FACTS = "instruments: expected lot_size >= 1, tick_size > 0, 0 < premium_min <= premium_max"
TIMEFRAME_IDS = "timeframes: expected ids from 1, once each"
BOUNDS = "quantity: expected 1 <= min < max"
NUMBERS = "expected finite numbers >= 0"
SIZES = "graph: expected sizes >= 1"
PROVEN = "parity: expected at least one stage that had to pass, and that each of those did$"
SCALES = r"graph\.input_scales: expected scales above 0 for int8, none for others$"
FILES = r"files: expected model\.onnx and golden\.npz"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (features(version=2), r"features\.version: this library computes .* 1, found 2"),
        (features(history_bars=199), "history_bars: expected >= 200"),
        (features(window=0), "window: expected >= 1"),
        (
            renamed(lambda names: names.remove("rsi_14")),
            r"features\.names: expected .* 54 names in order; missing \['rsi_14'\], unknown \[\]$",
        ),
        (
            renamed(lambda names: names.append("rsi_9")),
            r"features\.names: .* missing \[\], unknown \['rsi_9'\]$",
        ),
        (
            renamed(lambda names: names.reverse()),
            r"features\.names: .* missing \[\], unknown \[\], found the right names in another",
        ),
        (
            renamed(lambda names: names.append("rsi_14")),
            r"features\.names: .* found the right names in another order or repeated$",
        ),
        (
            lambda c: replace(c, account=c.account[1:]),
            r"account: expected this library's 5 names in order; missing \['side'\]",
        ),
        (
            lambda c: replace(c, actions={**c.actions, "HOLD": 5}),
            r"actions: expected \{'BUY_LONG': 0.*'HOLD': 4\}, found \{.*'HOLD': 5",
        ),
        (lambda c: replace(c, files={"model.onnx": ""}), FILES),
        (lambda c: replace(c, files={**c.files, "model.data": ""}), FILES),
        (instrument(id=2), IDS),
        (instrument(id=-1), IDS),
        (
            lambda c: replace(c, instruments={"Alpha": c.instruments["Alpha"]}),
            "instruments: expected 'unknown' with id 0",
        ),
        (instrument(UNKNOWN, id=7), "instruments: expected 'unknown' with id 0"),
        (instrument(lot_size=0), FACTS),
        (instrument(tick_size=0.0), FACTS),
        (instrument(premium_min=0.0), FACTS),
        (instrument(premium_min=0.06), FACTS),
        (timeframe(id=1), TIMEFRAME_IDS),
        (timeframe(id=0), TIMEFRAME_IDS),
        (timeframe(seconds=0), "timeframes: expected seconds >= 1"),
        (part("quantity", min=0.5), BOUNDS),
        (part("quantity", max=1.0), BOUNDS),
        (part("trading", cost_fraction=-1e-4), NUMBERS),
        (part("trading", stop_atr=-1.0), NUMBERS),
        (lambda c: replace(c, tolerances={**c.tolerances, "value": -1e-4}), NUMBERS),
        *((part("graph", **{n: 0}), SIZES) for n in ("cycles", "timesteps", "tokens", "h_dim")),
        (part("graph", l_dim=0), SIZES),
        (lambda c: replace(c, max_segments=0), "max_segments: expected >= 1"),
        *(
            (part("provenance", trained_until=moment), r"provenance\.trained_until: expected epoch")
            for moment in (-1, 1_700_574_900_000)
        ),
        (
            lambda c: replace(c, parity=(c.parity[0], replace(c.parity[0], passed=False))),
            PROVEN,
        ),
        (lambda c: replace(c, parity=()), PROVEN),
        (stages(lambda s: replace(s, gated=False)), PROVEN),
        (stages(lambda s: replace(s, outputs={})), PROVEN),
        (stages(outputs(beyond=1)), PROVEN),
        (stages(lambda s: replace(s, allowance=0.0051)), PROVEN),
        (stages(lambda s: outputs(beyond=s.windows // 100)(replace(s, allowance=0.005))), PROVEN),
        (part("graph", input_scales={"l_module.from_h": 0.1}), SCALES),
        (part("graph", precision="fp16", input_scales={"l_module.from_h": 0.1}), SCALES),
        (int8(), SCALES),
        (int8(join=0.0), SCALES),
        (int8(join=0.1, other=-0.1), SCALES),
        (
            lambda c: replace(c, tolerances={**c.tolerances, "mood": 0.01}),
            "tolerances: expected one per output",
        ),
        (
            lambda c: replace(c, tolerances={**c.tolerances, "value": 1e9}),
            "tolerances: expected at most 0.05$",
        ),
        (
            lambda c: part("graph", precision="fp16")(
                replace(c, tolerances={**c.tolerances, "value": 0.0501})
            ),
            "tolerances: expected at most 0.05$",
        ),
        (int8(worst=0.501, join=0.1), "tolerances: expected at most 0.5$"),
    ],
)
def test_a_contradiction_is_refused_with_what_was_expected(
    contract: Contract, change: Callable[[Contract], Contract], message: str
) -> None:
    with pytest.raises(ContractInvalid, match=rf"^contract\.json: {message}"):
        read_contract(seal(change(contract)))


@pytest.mark.parametrize(
    "change",
    [
        features(window=1, history_bars=200),
        instrument("Gamma & Co., Ltd. — “new”", id=3),
        timeframe("a fortnight", id=9, seconds=14 * 86_400),
        part("trading", cost_fraction=0.0),
        lambda c: replace(c, timeframes={}),
        part("graph", precision="fp16"),
        int8(join=0.1, other=1e-9),
        lambda c: replace(
            c, parity=(c.parity[0], replace(c.parity[0], gated=False, passed=False, outputs={}))
        ),
        stages(outputs(max_rel=7.0, tolerance=None)),
        stages(lambda s: outputs(beyond=s.windows // 200)(replace(s, allowance=0.005))),
    ],
)
def test_what_is_allowed_is_read_as_it_was_written(
    contract: Contract, change: Callable[[Contract], Contract]
) -> None:
    changed = change(contract)
    assert asdict(read_contract(seal(changed))) == {
        **asdict(changed),
        "digest": json.loads(seal(changed))["digest"],
    }
