"""Settings from YAML, each problem in words."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hrm_train.errors import SettingsInvalid
from hrm_train.settings.schema import Settings


def load_settings(path: str | Path) -> Settings:
    """Settings from a YAML file; every key left out has its default.

    Raises:
        SettingsInvalid: the file is missing or not YAML, or a value is unknown, mistyped or
            impossible. One line per problem: path of the value, what was expected, what was found.
    """
    path = Path(path)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path}: expected a readable settings file: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsInvalid(f"{path}: expected YAML: {error}") from error
    return parse_settings(document if document is not None else {}, source=str(path))


def parse_settings(document: object, source: str = "settings") -> Settings:
    """Settings from parsed YAML.

    Raises:
        SettingsInvalid: as `load_settings`.
    """
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        problems = "\n".join(
            f"{source}: {_explain(dict(problem))}" for problem in error.errors(include_url=False)
        )
        raise SettingsInvalid(problems) from error


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [str(self.construct_object(key, deep=True)) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"{key} is given twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


def _explain(problem: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key; check its name and its level (found {problem['input']!r})"
    if problem["type"] == "missing":
        return f"{path}: expected, but missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # ours: says what was expected and found
        return f"{path or 'file'}: {message}"
    message = message.replace("Input should be ", "expected ")
    return f"{path or 'file'}: {message}, found {problem['input']!r}"
