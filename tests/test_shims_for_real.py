"""A shim against the library that the release is locked with: fails when it is no longer needed."""

from pathlib import Path

import pytest

from tests.compiled import compile_with
from tests.real import fluxkit


@pytest.mark.slow
@pytest.mark.parametrize(("names", "says"), [
    (("regional_compile",), "fluxkit: 3 blocks are compiled 3 3 True"), ((), "0 3 False"),
])  # fmt: skip
def test_accelerate_compiles_blocks_that_nobody_runs(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    toml = '[project]\nname = "p"\ntrigger = "fxkdemo"\n[simpletuner]\nversion = "4.8.0"\nplatform = "cpu"\n'
    (tmp_path / "fluxkit.toml").write_text(toml)
    environment = fluxkit("install", "-C", tmp_path).strip().splitlines()[-1]
    assert compile_with(f"{environment}/bin/python", tmp_path, names) == says
