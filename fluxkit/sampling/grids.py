"""X/Y grids: the images of a folder as one PNG with axes, from what the ledger has; nothing is made anew."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit.errors import UserError
from fluxkit.files import atomic_path
from fluxkit.sampling.axes import AXES, Entry, Value, adapter_name, check_axis, label_of, value_of, values
from fluxkit.sampling.ledger import read_entries

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_LONGEST = 8192  # pixels of a grid's longer edge: what viewers and browsers open
_LARGEST_CELL = 1024
_SMALLEST_CELL = 48
_GAP = 8
_MANY = 64  # grids of one call
_TITLE_LINES = 4
_LABEL_LINES = 3
_INK, _DIM, _PAPER, _EMPTY = "#1c1c1e", "#6b6b70", "#ffffff", "#ececee"


def parse_axes(text: str) -> tuple[str, str]:
    """`x,y` as two axes.

    Raises:
        UserError: they aren't two, or there are none such.
    """
    names = [check_axis(part) for part in text.split(",")]
    if len(names) != 2 or names[0] == names[1]:
        raise UserError(f"--grid {text!r} is no pair of axes.", fix="For example: --grid checkpoint,seed")
    return names[0], names[1]


def write_grids(folder: Path, x: str, y: str) -> list[Path]:
    """Write a grid for each combination of what is on neither axis, such as each prompt.

    Args:
        folder: of images.
        x: the axis that runs to the right.
        y: the axis that runs down.

    Returns:
        The grids' files, in `folder`.

    Raises:
        UserError: there is nothing to compare, there are too many grids or cells, or the folder can't be written.
    """
    entries = [entry for entry in read_entries(folder).values() if (folder / str(entry["file"])).is_file()]
    if not entries:
        raise UserError(f"There are no images in {folder}.", fix="Make some with `fluxkit sample`.")
    rest = sorted((axis for axis in AXES if axis not in (x, y)), key=lambda axis: axis != "prompt")
    groups: dict[Value, list[Entry]] = {}
    for entry in entries:
        made = (entry["width"], entry["height"], entry["quantization"], entry.get("first_block_cache"))
        fixed = (*(value_of(axis, entry) for axis in rest), made)
        groups.setdefault(fixed, []).append(entry)
    groups = _with_the_base(groups, rest)
    groups = {fixed: group for fixed, group in groups.items() if len(values(x, group)) * len(values(y, group)) > 1}
    if not groups:
        raise UserError(
            f"The images in {folder} differ neither in {x} nor in {y} alone.",
            fix=f"Choose other axes: {', '.join(AXES)}.",
        )
    if len(groups) > _MANY:
        raise UserError(
            f"That would be {len(groups)} grids.", fix=f"Put what differs most on an axis: {', '.join(AXES)}."
        )
    return [_write(folder, x, y, rest, fixed, group) for fixed, group in sorted(groups.items(), key=_by_text)]


def _by_text(item: tuple[Value, Any]) -> str:
    return repr(item[0])


def _with_the_base(groups: dict[Value, list[Entry]], rest: Sequence[str]) -> dict[Value, list[Entry]]:
    """Where strength is on no axis, images of the base alone join the grids of every strength."""
    if "strength" not in rest or "checkpoint" in rest:
        return groups
    place = rest.index("strength")
    alone = {fixed: group for fixed, group in groups.items() if not any(adapter_name(entry) for entry in group)}
    others = {fixed: list(group) for fixed, group in groups.items() if fixed not in alone}
    for fixed, group in alone.items():
        joined = [one for one in others if one[:place] + one[place + 1 :] == fixed[:place] + fixed[place + 1 :]]
        for one in joined:
            others[one] += group
        if not joined:
            others[fixed] = list(group)
    return others


def _write(folder: Path, x: str, y: str, rest: Sequence[str], fixed: Value, group: Sequence[Entry]) -> Path:
    cells: dict[tuple[Value, Value], Entry] = {}
    for entry in _base_at_every_strength(group, (x, y)):
        place = (value_of(x, entry), value_of(y, entry))
        # The last made wins, and what was made beside the weights before what was merged.
        if place not in cells or entry.get("wrapped", False) >= cells[place].get("wrapped", False):
            cells[place] = entry
    columns, rows = (sorted({place[side] for place in cells}) for side in (0, 1))
    said = [label_of(axis, value) for axis, value in zip(rest, fixed, strict=False)]
    name = hashlib.sha256(repr((x, y, fixed)).encode("utf-8", "replace")).hexdigest()[:8]
    path = folder / f"grid-{x}-{y}-{name}.png"
    image = _draw(folder, (x, columns), (y, rows), cells, " · ".join(said))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
    return path


def _base_at_every_strength(group: Sequence[Entry], axes: tuple[str, str]) -> list[Entry]:
    """The base alone has no strength: beside checkpoints it stands at each of theirs."""
    strengths = {entry["strength"] for entry in group if adapter_name(entry)}
    if set(axes) != {"checkpoint", "strength"} or not strengths:
        return list(group)
    return [
        {**entry, "strength": strength}
        for entry in group
        for strength in ([entry["strength"]] if adapter_name(entry) else sorted(strengths))
    ]


def _draw(
    folder: Path,
    across: tuple[str, list[Value]],
    down: tuple[str, list[Value]],
    cells: Mapping[tuple[Value, Value], Entry],
    title: str,
) -> "Image":
    """The grid: a title, labels above and to the left, and the images."""
    from PIL import Image, ImageDraw, ImageOps

    (x, columns), (y, rows) = across, down
    any_cell = next(iter(cells.values()))
    width, height = _cell_size(any_cell["width"], any_cell["height"], len(columns), len(rows))
    size = max(12, min(36, min(width, height) // 14))
    font, bold = _font(size), _font(size * 5 // 4)
    canvas = Image.new("RGB", (1, 1))
    ruler = ImageDraw.Draw(canvas)
    longest = max(ruler.textlength(label_of(y, value), font) for value in rows)
    left_width = math.ceil(min(longest, max(width, size * 8))) + _GAP
    tops = [_wrap(ruler, label_of(x, value), font, width, _LABEL_LINES) for value in columns]
    sides = [
        _wrap(ruler, label_of(y, value), font, left_width - _GAP, max(1, height // (size * 3 // 2))) for value in rows
    ]
    left = left_width + _GAP
    total_width = left + len(columns) * (width + _GAP) + _GAP
    lines = _wrap(ruler, title, bold, total_width - 2 * _GAP, _TITLE_LINES)
    head = _GAP + len(lines) * (size * 7 // 4)
    top = head + max(len(label) for label in tops) * (size * 3 // 2) + _GAP
    canvas = Image.new("RGB", (total_width, top + len(rows) * (height + _GAP) + _GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    _text(draw, (_GAP, _GAP), lines, bold, size * 7 // 4, _INK)
    for column, label in enumerate(tops):
        _text(draw, (left + column * (width + _GAP), head), label, font, size * 3 // 2, _DIM)
    for row, label in enumerate(sides):
        y_place = top + row * (height + _GAP)
        _text(draw, (_GAP, y_place), label, font, size * 3 // 2, _DIM)
        for column in range(len(columns)):
            x_place = left + column * (width + _GAP)
            entry = cells.get((columns[column], rows[row]))
            if entry is None:
                draw.rectangle((x_place, y_place, x_place + width - 1, y_place + height - 1), fill=_EMPTY)
                continue
            with Image.open(folder / str(entry["file"])) as image:
                canvas.paste(ImageOps.contain(image.convert("RGB"), (width, height)), (x_place, y_place))
    return canvas


def _cell_size(width: int, height: int, columns: int, rows: int) -> tuple[int, int]:
    """An image's size in the grid: its own where the whole stays within bounds.

    Raises:
        UserError: it would be too small to see anything.
    """
    room_across = (_LONGEST - 600) / columns - _GAP
    room_down = (_LONGEST - 600) / rows - _GAP
    scale = min(1.0, _LARGEST_CELL / max(width, height), room_across / width, room_down / height)
    size = int(width * scale), int(height * scale)
    if min(size) < min(_SMALLEST_CELL, width, height):
        raise UserError(
            f"A grid of {columns} × {rows} images would be too large to open.",
            fix="Compare fewer at once, for example with --seeds 4.",
        )
    return size


def _font(size: int) -> Any:
    """DejaVu where the system has it (more scripts), else Pillow's own Aileron."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _wrap(draw: "ImageDraw", text: str, font: Any, width: float, most: int) -> list[str]:
    """Lines that fit into `width` pixels; what is beyond `most` lines is cut off."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:  # a word longer than a line is cut
            if lines[-1] and draw.textlength(lines[-1] + letter, font) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) > most:
        lines = lines[:most]
        while lines[-1] and draw.textlength(lines[-1] + "…", font) > width:
            lines[-1] = lines[-1][:-1]
        lines[-1] += "…"
    return lines


def _text(draw: "ImageDraw", place: tuple[int, int], lines: Sequence[str], font: Any, step: int, ink: str) -> None:
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + number * step), line, fill=ink, font=font)
