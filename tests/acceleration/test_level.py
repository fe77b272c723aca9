from __future__ import annotations

import pytest

from nas_lightning.acceleration.level import LEVELS, LONG_WORK, check_speed, level_of


def test_automatic_levels_follow_the_work() -> None:
    assert level_of("auto", "cpu", work=LONG_WORK / 2) is LEVELS["fast"]
    assert level_of("auto", "cpu", work=LONG_WORK) is LEVELS["compiled"]
    assert level_of("auto", "cuda", work=1e30) is LEVELS["fast"]
    assert level_of("auto", "mps", work=1e30) is LEVELS["fast"]
    assert level_of("max", "cpu", work=0).mixed
    with pytest.raises(ValueError, match=r"`speed` \(='warp'\) must be one of 'auto', 'reference'"):
        check_speed("warp")


@pytest.mark.parametrize("speed", ["compiled", "max"])
def test_levels_that_need_a_compiler_are_refused_without_one(
    speed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=rf"`speed` \(='{speed}'\) needs a C\+\+ compiler, such as g\+\+"):
        level_of(speed, "cpu", work=0)  # type: ignore[arg-type]
    assert level_of("auto", "cpu", work=LONG_WORK) is LEVELS["fast"]
