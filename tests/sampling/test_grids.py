"""Sheets with axes: which image is where, and how large the whole may become."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fluxkit.errors import UserError
from fluxkit.sampling.axes import check_axis
from fluxkit.sampling.grids import parse_axes, write_grids
from tests.sampling.pictures import make_folder

CHECKPOINTS = ("final", "", "checkpoint-1000", "checkpoint-500")


def flat(folder: Path) -> dict[tuple[str, int, float], tuple[int, int, int]]:
    """Every image painted in one colour of its own; returns the colours by checkpoint, seed and strength."""
    from fluxkit.sampling.ledger import read_entries

    colours = {}
    for number, entry in enumerate(read_entries(folder).values()):
        colour = (40 + number * 7 % 200, 10 + number * 53 % 200, 20 + number * 31 % 200)
        Image.new("RGB", (entry["width"], entry["height"]), colour).save(folder / entry["file"])
        colours[entry["adapter"], entry["seed"], entry["strength"]] = colour
    assert len(set(colours.values())) == len(colours)
    return colours


def order(sheet: Path, colours: set[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """The cells' colours, row by row, as they stand on the sheet."""
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    places = {}
    for colour in colours:
        found = np.argwhere((pixels == colour).all(axis=2))
        if len(found):
            places[colour] = int(found[0][0]), int(found[0][1])
    rows: dict[int, list[tuple[int, tuple[int, int, int]]]] = {}
    for colour, (top, left) in places.items():
        rows.setdefault(top, []).append((left, colour))
    return [[colour for _, colour in sorted(row)] for _, row in sorted(rows.items())]


def test_the_same_seed_stands_beside_itself_across_checkpoints(tmp_path: Path) -> None:
    make_folder(tmp_path, prompts={"p": "ohwx"}, seeds=(3, 1), adapters=CHECKPOINTS)
    colours = flat(tmp_path)
    (sheet,) = write_grids(tmp_path, "checkpoint", "seed")
    expected = [
        [colours[name, seed, 1.0 if name else 0.0] for name in ("", "checkpoint-500", "checkpoint-1000", "final")]
        for seed in (1, 3)
    ]
    assert order(sheet, set(colours.values())) == expected


def test_the_base_alone_stands_at_every_strength(tmp_path: Path) -> None:
    make_folder(tmp_path, prompts={"p": "ohwx"}, seeds=(1,), adapters=("", "final"), strengths=(0.5, 1.0))
    colours = flat(tmp_path)
    (sheet,) = write_grids(tmp_path, "checkpoint", "strength")
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    assert (pixels == colours["", 1, 0.0]).all(axis=2).sum() == 2 * 64 * 80


def test_one_sheet_a_prompt_and_nothing_made_anew(tmp_path: Path) -> None:
    make_folder(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.png")}
    sheets = write_grids(tmp_path, "checkpoint", "seed")
    assert len(sheets) == 2
    assert {path: path.read_bytes() for path in before} == before
    assert write_grids(tmp_path, "checkpoint", "seed") == sheets, "a second call writes over the first"


def test_long_prompts_are_wrapped_and_bounded(tmp_path: Path) -> None:
    make_folder(tmp_path, prompts={"a": "word " * 400, "b": "x" * 2000}, seeds=(1,), size=(64, 64))
    for x, y in (("checkpoint", "prompt"), ("prompt", "checkpoint"), ("checkpoint", "seed")):
        for sheet in write_grids(tmp_path, x, y):
            with Image.open(sheet) as image:
                assert max(image.size) < 1200


def test_a_large_sheet_shrinks_its_cells(tmp_path: Path) -> None:
    make_folder(tmp_path, prompts={"p": "x"}, seeds=range(24), adapters=("final", ""), size=(512, 512))
    (sheet,) = write_grids(tmp_path, "checkpoint", "seed")
    with Image.open(sheet) as image:
        assert 4096 < max(image.size) <= 8192


def test_what_can_not_be_compared_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images"):
        write_grids(tmp_path, "checkpoint", "seed")
    make_folder(tmp_path, prompts={"p": "x"}, seeds=(1,), adapters=("final",))
    with pytest.raises(UserError, match="differ neither in guidance nor in steps"):
        write_grids(tmp_path, "guidance", "steps")
    with pytest.raises(UserError, match="no axis colour"):
        check_axis("colour")
    for text in ("seed", "seed,seed", "seed,steps,prompt"):
        with pytest.raises(UserError, match="pair of axes"):
            parse_axes(text)
    assert parse_axes("checkpoints, Seeds") == ("checkpoint", "seed")
