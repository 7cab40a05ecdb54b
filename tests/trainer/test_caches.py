import json
import os
from pathlib import Path
from typing import Any

import pytest

from fluxkit.trainer import caches
from fluxkit.trainer.caches import CacheChange, Photos, latents_names, refresh_cache

ID = "behitek-1024-0123abcd"
NAMES = ("a.jpg", "b.jpg", "sub/c.png")


class Stand:
    """Photos, and what a trainer caches of them."""

    def __init__(self, root: Path) -> None:
        self.photos, self.output = root / "photos", root / "run" / "output"
        self.cache = root / "cache" / "vae" / ID
        for name in NAMES:
            self.put(name, b"picture of " + name.encode())

    def put(self, name: str, contents: bytes) -> None:
        path = self.photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)

    def names(self) -> list[str]:
        files = (p for p in self.photos.rglob("*") if p.is_file() and p.suffix != ".json")
        return sorted(p.relative_to(self.photos).as_posix() for p in files)

    def before_launch(self) -> CacheChange:
        backend = {"id": ID, "cache_dir_vae": str(self.cache)}
        return refresh_cache(backend, Photos(self.photos, self.names()), self.output)

    def train(self, named: int = 0) -> None:
        """Cache as the trainer does: what is missing only, named by hash (0) or plainly (1)."""
        for name in self.names():
            path = self.cache / latents_names(name)[named]
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(b"latents of " + (self.photos / name).read_bytes())
        paths = [str(self.photos / name) for name in self.names()]
        self.file("indices").write_text(json.dumps({"config": {}, "aspect_ratio_bucket_indices": {"1.0": paths}}))
        self.file("metadata").write_text(json.dumps({path: {"aspect_ratio": 1.0} for path in paths}))

    def file(self, what: str) -> Path:
        return self.photos / f"aspect_ratio_bucket_{what}_{ID}.json"

    def latents(self) -> dict[str, bytes]:
        found = {}
        for name in NAMES:
            for cached in latents_names(name):
                if (self.cache / cached).exists():
                    found[name] = (self.cache / cached).read_bytes()
        return found

    def listed(self) -> list[str]:
        buckets: Any = json.loads(self.file("indices").read_text())["aspect_ratio_bucket_indices"]
        facts = json.loads(self.file("metadata").read_text())
        assert sorted(facts) == sorted(path for paths in buckets.values() for path in paths)
        return sorted(Path(path).relative_to(self.photos).as_posix() for path in facts)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    stand = Stand(tmp_path)
    stand.before_launch()
    stand.train()
    return stand


def test_nothing_changed_nothing_dropped_and_nothing_read(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "sha256_file", lambda _: pytest.fail("a photo that looks the same was read"))
    assert not stand.before_launch()
    assert sorted(stand.latents()) == sorted(NAMES)


@pytest.mark.parametrize("named", [0, 1])
def test_another_photo_under_the_same_name_is_encoded_anew(tmp_path: Path, named: int) -> None:
    stand = Stand(tmp_path)
    stand.before_launch()
    stand.train(named)
    stand.put("sub/c.png", b"another picture")
    change = stand.before_launch()
    assert (change.changed, change.added, change.gone, change.dropped) == (("sub/c.png",), (), (), 1)
    assert sorted(stand.latents()) == ["a.jpg", "b.jpg"]
    assert stand.listed() == ["a.jpg", "b.jpg"]
    stand.train(named)
    assert stand.latents()["sub/c.png"] == b"latents of another picture"
    assert not stand.before_launch()


def test_a_replacement_that_keeps_size_and_time_is_noticed(stand: Stand) -> None:
    path = stand.photos / "a.jpg"
    before = path.stat()
    path.write_bytes(b"p" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the filesystem's clock ticks every few milliseconds
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stand.before_launch().changed == ("a.jpg",)


def test_a_photo_that_was_only_touched_or_copied_back_keeps_its_latents(stand: Stand) -> None:
    os.utime(stand.photos / "a.jpg", ns=(1, 1))
    (stand.photos / "b.jpg").rename(stand.photos / "b.old")
    (stand.photos / "b.jpg").write_bytes((stand.photos / "b.old").read_bytes())
    (stand.photos / "b.old").unlink()
    assert not stand.before_launch()
    assert sorted(stand.latents()) == sorted(NAMES)


def test_a_photo_that_was_taken_out_leaves_nothing_behind(stand: Stand) -> None:
    (stand.photos / "b.jpg").unlink()
    assert stand.before_launch().gone == ("b.jpg",)
    assert sorted(stand.latents()) == ["a.jpg", "sub/c.png"]
    assert stand.listed() == ["a.jpg", "sub/c.png"]


def test_a_new_photo_never_meets_latents_of_one_that_had_its_name(stand: Stand) -> None:
    (stand.cache / latents_names("d.jpg")[0]).write_bytes(b"of long ago")
    stand.put("d.jpg", b"new")
    assert stand.before_launch().added == ("d.jpg",)
    assert not (stand.cache / latents_names("d.jpg")[0]).exists()


@pytest.mark.parametrize("contents", [None, b"", b"[]", b'{"version": 99, "photos": {}}', b'{"version": 1}'])
def test_latents_of_unknown_origin_are_made_anew(stand: Stand, contents: bytes | None) -> None:
    list_file = stand.cache.with_name(f"{ID}.photos.json")
    list_file.unlink() if contents is None else list_file.write_bytes(contents)
    assert stand.before_launch().dropped == 3
    assert stand.latents() == {}


def test_an_empty_file_that_a_full_disk_left_is_dropped(stand: Stand) -> None:
    (stand.cache / latents_names("a.jpg")[0]).write_bytes(b"")
    assert stand.before_launch().dropped == 1
    assert sorted(stand.latents()) == ["b.jpg", "sub/c.png"]


def test_lists_of_sizes_that_cannot_be_understood_are_dropped_whole(stand: Stand) -> None:
    stand.file("indices").write_text("{")
    stand.put("a.jpg", b"another")
    stand.before_launch()
    assert not stand.file("indices").exists()
    assert not stand.file("metadata").exists()


def test_checkpoints_forget_the_photos_of_before_and_keep_everything_else(stand: Stand) -> None:
    folder = stand.output / "checkpoint-3"
    folder.mkdir(parents=True)
    names = ["training_state.json", f"training_state-{ID}.json", f"training_state-rank1-{ID}.json"]
    for name in [*names, "training_state-other-512-89.json"]:
        (folder / name).write_text("{}")
    stand.before_launch()
    assert len(list(folder.glob("*.json"))) == 4
    (stand.photos / "b.jpg").unlink()
    stand.before_launch()
    assert sorted(p.name for p in folder.glob("*.json")) == ["training_state-other-512-89.json", "training_state.json"]
    assert len(list(folder.glob("*.stale"))) == 2


def test_a_kill_between_dropping_and_remembering_loses_nothing(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.put("a.jpg", b"another")
    with monkeypatch.context() as killed:
        killed.setattr(caches, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stand.before_launch()
    assert stand.before_launch().changed == ("a.jpg",)
    stand.train()
    assert stand.latents()["a.jpg"] == b"latents of another"
