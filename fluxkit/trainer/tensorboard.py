"""What a run wrote for TensorBoard: loss, learning rate and gradient norm by step, read from its event files.

An event file is a row of TFRecords (https://www.tensorflow.org/tutorials/load_data/tfrecord: length and data, each with
its masked CRC-32C), each a protobuf message `Event` (tensorflow/core/util/event.proto, framework/summary.proto).
Read here, because TensorBoard's own reader brings grpc and a data server, tbparse brings TensorBoard and pandas, and
importing tensorboardX (2.6.5) imports torch: seconds and a GB, for five numbers a step.

The file is the trainer's, and may be growing, cut short or something else: what is not understood ends the reading of
that file and raises nothing.
"""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from fluxkit.trainer.runs import Run

PATTERN = "events.out.tfevents.*"
LARGEST_RECORD = 64 * 2**10  # bytes; a step's scalar has 50 or so. What is larger is a picture, and is leapt over
MOST_FILES = 1000  # of one run: each launch makes three
_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_FLOAT = struct.Struct("<f")
_DOUBLE = struct.Struct("<d")
# What SimpleTuner 1.2 to 4.10.1 calls them (helpers/training/trainer.py); grad_clip_method decides between the norms.
_TAGS = {
    "train_loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "grad_absmax": "gradient_norm",
}


@dataclass(frozen=True)
class Scalars:
    """What was logged of one optimizer step; None for what was not.

    Args:
        step: the step.
        time: when it was logged, seconds since 1970.
        loss: of the step.
        learning_rate: of the step.
        gradient_norm: of the step, before clipping; the largest gradient where SimpleTuner clips by value.
    """

    step: int
    time: float
    loss: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None


class EventFile:
    """One event file, read as far as it is written.

    Args:
        path: the file.
        offset: the first byte to read, between two records.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._foreign = False

    def read(self) -> Iterator[tuple[int, float, str, float]]:
        """What came since the last time: the step, when it was logged, a field of `Scalars` and its value."""
        if self._foreign or not self._path.is_file():  # a pipe of that name would never end
            return
        try:
            for data in self._records():
                yield from _scalars(data)
        except (OSError, ValueError, struct.error, IndexError, OverflowError):
            self._foreign = True

    def _records(self) -> Iterator[bytes]:
        with self._path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(self._offset)
            while self._offset + _LENGTH.size <= size:
                head = handle.read(_LENGTH.size)
                length, crc = _LENGTH.unpack(head)
                _check(head[:8], crc)
                end = self._offset + _LENGTH.size + length + _CRC.size
                if end > size:
                    return  # still being written, or cut short
                self._offset = end
                if length > LARGEST_RECORD:
                    handle.seek(end)
                    continue
                data = handle.read(length)
                _check(data, *_CRC.unpack(handle.read(_CRC.size)))
                yield data


class EventFolder:
    """All event files of a run.

    Args:
        folder: where they are, at any depth.
        skip: files that are no concern: those of earlier launches.
    """

    def __init__(self, folder: Path, skip: Iterable[Path] = ()) -> None:
        self._folder = folder
        self._skip = frozenset(skip)
        self._files: dict[Path, EventFile] = {}

    @classmethod
    def from_now(cls, run: Run) -> "EventFolder":
        """Only what will be written: every launch makes files of its own."""
        folder = log_folder(run)
        return cls(folder, _files(folder))

    def news(self) -> list[Scalars]:
        """The steps of which something was logged since the last call, ascending; the last value of each counts."""
        found: dict[int, dict[str, float]] = {}
        for path in _files(self._folder):
            if path not in self._skip:
                for step, time, name, value in self._files.setdefault(path, EventFile(path)).read():
                    found.setdefault(step, {}).update({"time": time, name: value})
        return [Scalars(step, **found[step]) for step in sorted(found)]


def log_folder(run: Run) -> Path:
    """Where a run logs: `logging_dir` below its output, `logs` unless the config says otherwise."""
    try:
        config = json.loads((run.config_dir / "config.json").read_text(encoding="utf-8"))
        named = config.get("--logging_dir", config.get("logging_dir"))
    except (OSError, ValueError, AttributeError):
        named = None
    return run.output_dir / (named if isinstance(named, str) and named else "logs")


def logged(run: Run) -> Mapping[int, Scalars]:
    """All that a run logged, by step, ascending; of a step that was trained twice, what came last.

    Nothing where its `logging_dir` lies elsewhere: other runs may log there too, and their steps have the same numbers.
    """
    folder = log_folder(run)
    if not folder.resolve().is_relative_to(run.output_dir.resolve()):
        return {}
    return {each.step: each for each in EventFolder(folder).news()}


def _files(folder: Path) -> list[Path]:
    try:
        # Their names begin with the second they were made in: the last one counts.
        return sorted(folder.rglob(PATTERN), key=lambda path: path.name)[-MOST_FILES:]
    except OSError:
        return []


def _check(data: bytes, stored: int) -> None:
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    if masked != stored:
        raise ValueError("the checksum is another one")


def _scalars(event: bytes) -> Iterator[tuple[int, float, str, float]]:
    """The scalars in an `Event`: wall_time = 1, step = 2, summary = 5 with value = 1 (tag = 1, simple_value = 2)."""
    time, step = 0.0, 0
    values: list[bytes] = []
    for number, content in _fields(event):
        if number == 1 and isinstance(content, bytes):
            (time,) = _DOUBLE.unpack(content)
        elif number == 2 and isinstance(content, int):
            step = content
        elif number == 5 and isinstance(content, bytes):
            values += [value for field, value in _fields(content) if field == 1 and isinstance(value, bytes)]
    for value in values:
        parts = dict(_fields(value))
        tag, simple = parts.get(1), parts.get(2)
        name = _TAGS.get(tag.decode("utf-8", "replace")) if isinstance(tag, bytes) else None
        if name and isinstance(simple, bytes) and 0 < step < 2**40 and math.isfinite(time):
            yield step, time, name, _FLOAT.unpack(simple)[0]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message (https://protobuf.dev/programming-guides/encoding): number, content."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("no field of a protobuf message")
        if at + length > len(message):
            raise ValueError("the message is cut short")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("no number has so many bytes")
