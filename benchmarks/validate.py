"""How fast `fluxkit validate` is, against Pillow's full `load()` and imagehash in one process; and how much memory.

    python benchmarks/validate.py speed [--images 1000] [--folder DIR]
    python benchmarks/validate.py memory [--images 1000]      (one figure; run it again with 20000)

Speed: JPEGs of 1 to 12 megapixels are generated (a texture with the spectrum of photographs, a photographed face on
every second one), in folders of 50. Each folder is read once, so that both sides find it in the page cache; then peer
and fluxkit take turns, folder by folder, the order changing. Every check is on, with and without faces; fluxkit's cache
of results is not used.
"""

import argparse
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.checks.engine import cores
from fluxkit.dataset.faces import find_face_detector
from fluxkit.dataset.model import DatasetReport, DatasetRules

RULES = DatasetRules(trigger="behitek")
A_FOLDER = 50


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="Where the pictures are kept from run to run [default: a new one].")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fluxkit-bench-"))
    try:
        (speed if options.what == "speed" else memory)(folder, options.images)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


def speed(root: Path, count: int) -> None:
    """Peer and fluxkit in turns, then truncated files."""
    folders = generate(root, count)
    detector = find_face_detector()
    size = sum(path.stat().st_size for folder in folders for path in folder.glob("*.jpg"))
    print(f"{count} JPEGs, {size / 1e6:.0f} MB; {cores()} cores; faces: {detector.name if detector else 'no OpenCV'}")
    sides: dict[str, Callable[[Path], object]] = {"peer": peer, "fluxkit": lambda folder: check_dataset(folder, RULES)}
    if detector:
        sides["fluxkit with faces"] = lambda folder: check_dataset(folder, RULES, faces=detector)
    for side in sides.values():
        side(folders[0])  # imports and first uses
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for turn, folder in enumerate(folders):
        for path in folder.iterdir():
            path.read_bytes()
        names = list(sides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started, used = time.perf_counter(), time.process_time()
            sides[name](folder)
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - used)
    for name in sides:
        ratios = [theirs / ours for theirs, ours in zip(wall["peer"], wall[name], strict=True)]
        print(
            f"{name:20} {count / sum(wall[name]):6.1f} images/s, "
            f"{1000 * sum(cpu[name]) / count:5.1f} ms of CPU an image; "
            f"{statistics.median(ratios):.2f} × the peer (median of {len(ratios)} folders; "
            f"in all {sum(wall['peer']) / sum(wall[name]):.2f} ×)"
        )
    truncated(root, folders)


def truncated(root: Path, folders: list[Path]) -> None:
    """Every picture of the first folder, cut at a place of its own."""
    broken = root / "truncated"
    shutil.rmtree(broken, ignore_errors=True)
    broken.mkdir()
    pictures = sorted(folders[0].glob("*.jpg"))
    for index, path in enumerate(pictures):
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[: 2 + (len(content) - 3) * (index + 1) // len(pictures)])
    report = check_dataset(broken, RULES)
    found = [finding for finding in report.findings if finding.code == "image.unreadable"]
    verified = sum(_verifies(path) for path in broken.iterdir())
    print(f"truncated: {len(found)} of {len(pictures)} found; Pillow's verify() lets {verified} pass")


def _verifies(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    except Exception:
        return False
    return True


def peer(folder: Path) -> list[object]:
    """What a script would do: decode, hash."""
    hashes = []
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as image:
            image.load()
            hashes.append(imagehash.phash(image))
    return hashes


def memory(root: Path, count: int) -> None:
    """Peak memory of validating `count` small different pictures, every check on; 8 of them have 12 megapixels."""
    folder = root / f"small-{count}"
    if not folder.is_dir():
        child = os.fork()  # what making them takes is not to be counted
        if not child:
            _generate_small(folder, count)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    rules = DatasetRules(trigger="behitek", resolutions=(128,))
    report: DatasetReport = check_dataset(folder, rules, faces=find_face_detector())
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{count} pictures: {peak / 1024:.0f} MB at most ({before / 1024:.0f} MB after imports), {took:.0f} s, "
        f"{len(report.images)} read, {len(report.findings)} findings"
    )


def generate(root: Path, count: int) -> list[Path]:
    """JPEGs of 1 to 12 megapixels in folders of 50, each with its caption; kept from run to run."""
    folders = [root / f"{number:03d}" for number in range(-(-count // A_FOLDER))]
    done = root / f"generated-{count}"
    if done.exists():
        return folders
    random.seed(1)
    texture, portrait = _texture(4000, 5000), _portrait()
    for index in range(count):
        folder = folders[index // A_FOLDER]
        folder.mkdir(parents=True, exist_ok=True)
        _photo(index, texture, portrait).save(folder / f"{index:05d}.jpg", quality=random.choice((85, 90, 92, 95)))
        (folder / f"{index:05d}.txt").write_text(f"behitek a person, picture {index}")
        if index % 100 == 99:
            print(f"generated {index + 1}", file=sys.stderr)
    done.touch()
    return folders


def _photo(index: int, texture: Image.Image, portrait: Image.Image) -> Image.Image:
    pixels = random.uniform(1e6, 12e6)
    aspect = random.choice((1.0, 4 / 3, 3 / 2, 3 / 4, 2 / 3))
    width, height = min(5000, round((pixels * aspect) ** 0.5)), min(4000, round((pixels / aspect) ** 0.5))
    left, top = random.randint(0, texture.width - width), random.randint(0, texture.height - height)
    image = texture.crop((left, top, left + width, top + height))
    # Other colours each time, as photos of other places have.
    shifts = [random.randint(-50, 50) for _ in range(3)]
    image = image.point([max(0, min(255, level + shift)) for shift in shifts for level in range(256)])
    if index % 2:
        edge = round(min(width, height) * random.uniform(0.5, 0.9))
        image.paste(portrait.resize((edge, edge), Image.Resampling.BICUBIC), ((width - edge) // 2, height - edge))
    return image


def _texture(height: int, width: int) -> Image.Image:
    """Noise of all sizes, each half as strong as the one twice as large: the spectrum of photographs."""
    noise = np.random.default_rng(1)
    total = np.zeros((height, width, 3), dtype=np.float32)
    for step in (1, 2, 4, 8, 16, 64, 256):
        size = (-(-height // step), -(-width // step), 3)
        layer = Image.fromarray(noise.integers(0, 256, size, dtype=np.uint8)).resize((width, height), 2)
        total += (np.asarray(layer, dtype=np.float32) - 128) * {1: 0.06, 2: 0.1, 4: 0.15, 8: 0.25}.get(step, 0.4)
    return Image.fromarray((total + 128).clip(0, 255).astype(np.uint8))


def _portrait() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut()).crop((110, 10, 340, 240))  # head and shoulders


def _generate_small(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    large = _texture(3000, 4000)
    for index in range(min(8, count)):
        large.transpose(Image.Transpose(index % 7)).save(folder / f"large-{index}.jpg", quality=90)
    for index in range(len(list(folder.iterdir())), count):
        left, top = index * 37 % 3800, index * 101 % 2800
        large.crop((left, top, left + 128, top + 128)).save(folder / f"{index:05d}.jpg", quality=95)
        (folder / f"{index:05d}.txt").write_text(f"behitek a person, picture {index}")


if __name__ == "__main__":
    main()
