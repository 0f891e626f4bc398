import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from live import SAFETY_S
from parts import Kept

from hrm_runtime import BadInput
from hrm_runtime.live.guards import Breaker, Guards, KillSwitch
from hrm_runtime.live.recorder import Recorder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a kill file would be."""
    return tmp_path / "kill"


# kill switch


def test_a_switch_that_nobody_pulled_lets_trade(file: Path) -> None:
    assert (KillSwitch().pulled(), KillSwitch(file).pulled()) == (None, None)


@pytest.mark.parametrize("with_file", [True, False])
def test_a_pulled_switch_says_why_until_it_is_released(file: Path, with_file: bool) -> None:
    switch = KillSwitch(file if with_file else None)
    switch.pull("drawdown")
    assert (switch.pulled(), switch.pulled()) == ("drawdown", "drawdown")
    switch.release()
    assert switch.pulled() is None


def test_the_last_one_who_pulled_is_heard() -> None:
    switch = KillSwitch()
    switch.pull("drawdown")
    switch.pull("operator")
    assert switch.pulled() == "operator"


@pytest.mark.parametrize(
    "appear",
    [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")],
    ids=["file", "folder", "dangling link"],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_whatever_appears_at_the_file_s_place_pulls_the_switch(
    file: Path, appear: Callable[[Path], Any], kind: Callable[[Path], Any]
) -> None:
    switch = KillSwitch(kind(file))
    assert switch.pulled() is None
    appear(file)
    assert switch.pulled() == f"found {file}"


def test_a_file_that_is_there_from_the_start_pulls_the_switch(file: Path) -> None:
    file.touch()
    assert KillSwitch(file).pulled() == f"found {file}"


def test_the_switch_stays_pulled_when_the_file_goes(file: Path) -> None:
    switch = KillSwitch(file)
    file.touch()
    assert switch.pulled() == f"found {file}"
    file.unlink()
    assert switch.pulled() == f"found {file}"
    switch.release()
    assert switch.pulled() is None


def test_a_file_is_looked_for_again_after_a_release(file: Path) -> None:
    switch = KillSwitch(file)
    switch.pull("operator")
    switch.release()
    file.touch()
    assert switch.pulled() == f"found {file}"


@pytest.mark.parametrize("why", ["operator", None], ids=["pulled before", "not pulled"])
def test_no_release_while_the_file_is_there(file: Path, why: str | None) -> None:
    switch = KillSwitch(file)
    if why is not None:
        switch.pull(why)
    file.touch()
    with pytest.raises(BadInput, match=rf"expected the file to be removed first: found {file}$"):
        switch.release()
    assert switch.pulled() == (why or f"found {file}")


def test_a_file_stays_where_it_was_named(
    file: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    switch = KillSwitch(file.name)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    file.touch()
    assert switch.pulled() == f"found {file}"


@pytest.mark.parametrize("name", ["gone/kill", "taken/kill"])
def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(
        BadInput, match=rf"^kill_file: expected a file in a folder that exists, found .*/{name}$"
    ):
        KillSwitch(tmp_path / name)


def test_a_folder_that_goes_is_a_kill(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    switch = KillSwitch(tmp_path / "control/kill")
    assert switch.pulled() is None
    (tmp_path / "control").rmdir()
    assert switch.pulled() == f"the folder of {tmp_path / 'control/kill'} is gone"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOTDIR, errno.ESTALE])
def test_a_place_that_cannot_be_looked_at_is_a_kill(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    switch = KillSwitch(file)

    def failing(path: Path) -> os.stat_result:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", failing)
        why = switch.pulled()
        with pytest.raises(BadInput, match=r"removed first: the kill file cannot be looked for: "):
            switch.release()
    expected = f"the kill file cannot be looked for: [Errno {number}] {os.strerror(number)}"
    assert why == f"{expected}: '{file}'"
    assert switch.pulled() == why
    switch.release()
    assert switch.pulled() is None


def test_a_place_that_no_file_can_have_is_a_kill(tmp_path: Path) -> None:
    why = KillSwitch(tmp_path / "ki\0ll").pulled()
    assert why is not None  # Python words the rest, not each version alike
    assert why.startswith("the kill file cannot be looked for: ")
    assert "embedded null" in why


def test_a_pull_while_another_looks_for_the_file_is_not_forgotten(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = KillSwitch(file)

    def pulled_meanwhile(path: Path) -> os.stat_result:
        switch.pull("operator")
        raise FileNotFoundError(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", pulled_meanwhile)
        assert switch.pulled() == "operator"
    assert switch.pulled() == "operator"


# the breaker


@pytest.mark.parametrize("limit", [1, 3])
def test_so_many_failures_in_a_row_open_the_breaker(limit: int) -> None:
    breaker = Breaker(limit)
    for number in range(1, limit):
        assert breaker.failed() is False
        assert (breaker.open, breaker.failures) == (False, number)
    assert breaker.failed() is True
    assert (breaker.open, breaker.failures, breaker.limit) == (True, limit, limit)


def test_a_success_between_starts_the_count_again() -> None:
    breaker = Breaker(2)
    assert breaker.failed() is False
    breaker.succeeded()
    assert breaker.failures == 0
    assert breaker.failed() is False
    assert breaker.open is False
    assert breaker.failed() is True


def test_only_the_failure_that_opens_the_breaker_says_so() -> None:
    breaker = Breaker(2)
    assert [breaker.failed() for _ in range(5)] == [False, True, False, False, False]
    assert breaker.failures == 5


def test_an_open_breaker_stays_open_after_a_success() -> None:
    breaker = Breaker(1)
    breaker.failed()
    breaker.succeeded()
    assert (breaker.open, breaker.failures) == (True, 0)
    assert breaker.failed() is False


def test_a_breaker_that_was_closed_opens_anew() -> None:
    breaker = Breaker(2)
    assert [breaker.failed(), breaker.failed()] == [False, True]
    breaker.close()
    assert (breaker.open, breaker.failures) == (False, 0)
    assert [breaker.failed(), breaker.failed()] == [False, True]


def test_of_failures_at_once_one_opens_the_breaker() -> None:
    breaker, together = Breaker(50), Barrier(4)

    def fail(_: int) -> list[bool]:
        together.wait(SAFETY_S)
        return [breaker.failed() for _ in range(500)]

    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = [answer for part in pool.map(fail, range(4)) for answer in part]
    assert (answers.count(True), breaker.failures, breaker.open) == (1, 2000, True)


# both, and the end


@pytest.fixture
def guarded(tmp_path: Path) -> tuple[Guards, Kept]:
    kept = Kept()
    return Guards(KillSwitch(tmp_path / "stop"), Breaker(2), Recorder(kept)), kept


def test_nothing_bars_an_engine_that_is_fine(guarded: tuple[Guards, Kept]) -> None:
    guards, kept = guarded
    assert (guards.barred(), guards.closed, kept.events) == (None, False, [])


def test_a_kill_bars_before_a_breaker_until_each_is_undone(guarded: tuple[Guards, Kept]) -> None:
    guards, kept = guarded
    for _ in range(2):
        guards.breaker.failed()
    guards.opened("axis 3")
    guards.kill("lunch")
    barred = [guards.barred()]
    guards.revive()
    barred += [guards.barred()]
    guards.close_breaker()
    barred += [guards.barred()]
    assert [one and (one.reason, str(one)) for one in barred] == [
        ("killed", "killed: lunch; revive() allows trading again"),
        ("breaker", "2 failures in a row; close_breaker() allows trading again"),
        None,
    ]
    assert kept.told() == ["breaker opened", "killed", "revived", "breaker closed"]


def test_the_kill_file_is_looked_for_where_it_matters(
    guarded: tuple[Guards, Kept], tmp_path: Path
) -> None:
    guards, kept = guarded
    (tmp_path / "stop").touch()
    assert guards.barred(look=False) is None
    found = guards.barred()
    assert str(found) == f"killed: found {tmp_path / 'stop'}; revive() allows trading again"
    assert str(guards.barred(look=False)) == str(found)
    with pytest.raises(BadInput, match="expected the file to be removed first"):
        guards.revive()
    assert kept.events == []
