"""Ask SimpleTuner's own code, release by release, what it makes of pictures of many sizes.

    python scripts/probe_geometry.py CLONE [RELEASE=FOLDER ...]

CLONE is a git clone of SimpleTuner with its tags; RELEASE=FOLDER adds a release that is only in an unpacked wheel (the
folder that holds `helpers/`). For each release its `TrainingSample` prepares blank pictures, with the state, the model
and the image library around it replaced by stand-ins, and `tests/dataset/data/trainer_geometry.json` gets what came
out. fluxkit's simulation is tested against that file; no upstream code is kept.
"""

import contextlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import types
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "tests" / "dataset" / "data" / "trainer_geometry.json"
RELEASES = ("1.2.5", "1.3.2", "2.1.2", "2.1.3", "2.2.1", "3.0.7", "3.0.8", "3.1.6", "3.3.4", "4.0.6", "4.2.0", "4.8.0")
SIZES = (
    (1024, 1024), (1025, 1024), (1024, 1025), (1025, 1025), (1023, 1400), (1400, 1024), (1024, 1400), (1030, 1026),
    (1536, 1024), (1024, 1536), (1600, 1067), (1067, 1601), (2000, 1125), (1080, 1920), (1200, 1199), (1199, 1201),
    (3000, 1024), (1024, 3001), (1500, 1500), (1333, 1033), (1111, 1777), (640, 480), (513, 512), (512, 512),
    (700, 1031), (1024, 1030), (2001, 1999),
)  # fmt: skip
RESOLUTIONS = (1024, 768, 720, 512, 448)
REHEARSAL = 64


class _State:
    """What the trainer's `StateTracker` answers here."""

    config: dict[str, Any] = {}  # noqa: RUF012  # one at a time, by design
    by_aspect: dict[Any, Any] = {}  # noqa: RUF012
    args = types.SimpleNamespace(aspect_bucket_alignment=64, aspect_bucket_rounding=2, framerate=25)

    @classmethod
    def get_resolution_by_aspect(cls, dataloader_resolution: float, aspect: float) -> Any:
        return cls.by_aspect.get((dataloader_resolution, aspect))

    @classmethod
    def set_resolution_by_aspect(cls, dataloader_resolution: float, aspect: float, resolution: Any) -> None:
        cls.by_aspect[(dataloader_resolution, aspect)] = resolution

    get_args = classmethod(lambda cls: cls.args)
    get_model = classmethod(lambda _: None)
    get_model_family = classmethod(lambda _: "flux")
    get_webhook_handler = classmethod(lambda _: None)
    get_data_backend_config = classmethod(lambda cls, *_, **__: cls.config)
    get_metadata_by_filepath = classmethod(lambda *_, **__: None)


def _module(name: str, **members: Any) -> None:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        part = ".".join(parts[:end])
        if part not in sys.modules:
            made = types.ModuleType(part)
            made.__path__ = []  # type: ignore[attr-defined]
            sys.modules[part] = made
            if end > 1:
                setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], made)
    for key, value in members.items():
        setattr(sys.modules[name], key, value)


def _stand_ins(helpers: Path, prefix: str) -> None:
    """Modules around the geometry; the geometry's own come from `helpers`."""
    import numpy as np
    from PIL import Image

    def resize(images: Any, sizes: Any) -> Any:
        return [np.asarray(Image.fromarray(one).resize(size)) for one, size in zip(images, sizes, strict=True)]

    def center(images: Any, sizes: Any) -> Any:
        cropped = []
        for one, (width, height) in zip(images, sizes, strict=True):
            top, left = max(0, (one.shape[0] - height) // 2), max(0, (one.shape[1] - width) // 2)
            cropped.append(one[top : top + height, left : left + width])
        return cropped

    class Batched:
        batch_resize_images = staticmethod(resize)
        batch_center_crop_images = staticmethod(center)

    for name in [name for name in sys.modules if name.split(".")[0] in ("helpers", "simpletuner")]:
        del sys.modules[name]
    _module("torchvision.transforms", **dict.fromkeys(("Compose", "ToTensor", "Normalize"), lambda *_: None))
    _module("torch")
    _module("cv2")
    _module("trainingsample", batch_resize_images=resize)
    _module("diffusers.utils.export_utils", export_to_gif=None)
    _module(f"{prefix}helpers.training.multi_process", should_log=lambda: False)
    _module(f"{prefix}helpers.training.state_tracker", StateTracker=_State)
    _module(f"{prefix}helpers.models.common", VideoModelFoundation=None, ImageModelFoundation=None)
    _module(f"{prefix}helpers.multiaspect.video", resize_video_frames=None)
    _module(f"{prefix}helpers.image_manipulation.brightness", calculate_luminance=None)
    _module(f"{prefix}helpers.image_manipulation.batched_training_samples", BatchedTrainingSamples=Batched)
    for folder in ("multiaspect", "image_manipulation"):
        sys.modules[f"{prefix}helpers.{folder}"].__path__ = [str(helpers / folder)]


def probe(helpers: Path, prefix: str) -> list[list[Any]]:
    """`[width, height, resolution, rehearsal, [bucket, target, intermediary, coordinates]]` for each picture."""
    import importlib

    _stand_ins(helpers, prefix)
    sample_class = importlib.import_module(f"{prefix}helpers.image_manipulation.training_sample").TrainingSample
    rows = []
    for resolution, rehearsal in [*((each, False) for each in RESOLUTIONS), (REHEARSAL, True)]:
        _State.config = _backend(resolution, rehearsal=rehearsal)
        _State.by_aspect = {}
        large = [size for size in SIZES if min(size) >= resolution]
        rows += [[*size, resolution, rehearsal, _prepared(sample_class, size)] for size in large]
    return rows


def _backend(resolution: int, *, rehearsal: bool) -> dict[str, Any]:
    """What the data backend's factory makes of fluxkit's rendered backend: pixel areas in megapixels."""
    square: dict[str, Any] = {"crop": True, "crop_style": "center", "crop_aspect": "square"}
    if rehearsal:
        return square | {"resolution": resolution, "resolution_type": "pixel"}
    area = resolution * resolution / 1_000_000
    more = {"resolution": area, "maximum_image_size": area, "target_downsample_size": area}
    return square | more | {"resolution_type": "area"}


def _prepared(sample_class: Any, size: tuple[int, int]) -> list[Any]:
    from PIL import Image

    made = sample_class(Image.new("RGB", size), "probe", image_metadata={"original_size": size}).prepare()
    return [
        str(float(made.aspect_ratio)),
        list(made.target_size),
        [int(edge) for edge in made.intermediary_size],
        list(made.crop_coordinates),
    ]


def main() -> None:
    """Probe each release and write the file."""
    clone, *others = sys.argv[1:]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for release in RELEASES:
            prefix = "" if int(release.split(".")[0]) < 2 or release in ("2.1.2", "2.1.3") else "simpletuner."
            inside = "simpletuner/helpers" if prefix else "helpers"
            command = [
                "git",
                "-C",
                clone,
                "archive",
                f"v{release}",
                f"{inside}/multiaspect",
                f"{inside}/image_manipulation",
            ]
            archive = subprocess.run(command, check=True, capture_output=True).stdout
            folder = Path(scratch, release)
            tarfile.open(fileobj=io.BytesIO(archive)).extractall(folder, filter="data")  # noqa: SIM115
            with contextlib.redirect_stdout(sys.stderr):
                found[release] = probe(folder / inside, prefix)
        for pair in others:
            release, _, folder_name = pair.partition("=")
            found[release] = probe(Path(folder_name) / "helpers", "simpletuner.")
    OUT.write_text(_as_text(found), encoding="utf-8")


def _as_text(found: dict[str, list[list[Any]]]) -> str:
    """JSON: releases that answered alike once, a picture a line."""
    groups: dict[str, list[str]] = {}
    for release, rows in found.items():
        groups.setdefault(",\n".join(json.dumps(row) for row in rows), []).append(release)
    texts = [f'{{"releases": {json.dumps(same)}, "pictures": [\n{rows}\n]}}' for rows, same in groups.items()]
    return "[\n" + ",\n".join(texts) + "\n]\n"


if __name__ == "__main__":
    main()
