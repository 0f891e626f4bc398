import pytest

from hrm_runtime import errors

TREE = {
    "HrmError": (Exception,),
    "DoNotStart": (errors.HrmError,),
    "ArtifactNotFound": (errors.DoNotStart,),
    "ArtifactDamaged": (errors.DoNotStart,),
    "UnsupportedFormat": (errors.DoNotStart,),
    "ContractInvalid": (errors.DoNotStart,),
    "SelfTestFailed": (errors.DoNotStart,),
    "BadInput": (errors.HrmError, ValueError),
    "BadBars": (errors.BadInput,),
    "NothingToDecide": (errors.BadBars,),
    "TooFewBars": (errors.NothingToDecide,),
    "BadAccount": (errors.BadInput,),
    "BadFeatures": (errors.BadInput,),
    "JournalUnreadable": (errors.BadInput,),
    "UnknownInstrument": (errors.BadInput,),
    "UnknownTimeframe": (errors.BadInput,),
    "InferenceFailed": (errors.HrmError,),
    "Untrusted": (errors.HrmError,),
    "GateFailed": (errors.HrmError,),
}


def test_the_tree_holds_every_error_of_the_module() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == TREE.keys() == set(errors.__all__)


@pytest.mark.parametrize(("name", "parents"), TREE.items())
def test_an_error_sits_where_the_tree_says(name: str, parents: tuple[type, ...]) -> None:
    assert getattr(errors, name).__bases__ == parents


@pytest.mark.parametrize("name", TREE)
def test_the_drawn_tree_names_every_error(name: str) -> None:
    drawn = [line.split("──")[-1].split()[0] for line in _drawing()]
    assert drawn.count(name) == 1


def _drawing() -> list[str]:
    assert errors.__doc__ is not None
    lines = errors.__doc__.splitlines()
    return [line for line in lines if line.strip() == "HrmError" or "──" in line]
