"""Folders of images with a ledger, drawn instead of made: what gallery, grids and picks are tried on."""

import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

from PIL import Image, ImageDraw

from fluxkit.sampling.ledger import open_ledger
from fluxkit.sampling.plan import AdapterContent, Identity, Job, job_key, plan_jobs
from fluxkit.sampling.server import gallery_server
from fluxkit.sampling.writer import describe, write_image

HOSTILE = '</script><img src=x onerror="document.title=\'owned\'"> {{ 7 * 7 }} "quoted", 😀\n# $&'


def draw(job: Job) -> Image.Image:
    """A face whose colours follow from the job."""
    number = zlib.crc32(repr((job.seed, job.adapter, job.strength, job.prompt)).encode()) % 360
    image = Image.new("RGB", (job.width, job.height), f"hsl({number}, 45%, 30%)")
    pen = ImageDraw.Draw(image)
    w, h = image.size
    pen.ellipse((w * 0.3, h * 0.2, w * 0.7, h * 0.75), fill=f"hsl({(number + 40) % 360}, 50%, 70%)")
    pen.ellipse((w * 0.4, h * 0.4, w * 0.45, h * 0.45), fill="black")
    pen.ellipse((w * 0.55, h * 0.4, w * 0.6, h * 0.45), fill="black")
    pen.arc((w * 0.4, h * 0.45, w * 0.6, h * 0.65), 20, 160, fill="black", width=max(1, w // 60))
    return image


def make_folder(
    folder: Path,
    *,
    prompts: dict[str, str] | None = None,
    seeds: Sequence[int] = (1, 2),
    adapters: Sequence[str] = ("checkpoint-500", "checkpoint-1000", "final"),
    strengths: Sequence[float] = (1.0,),
    size: tuple[int, int] = (64, 80),
) -> dict[str, Job]:
    """Draw and record every image; returns the jobs by key."""
    jobs = plan_jobs(
        prompts or {"portrait": "ohwx man", "hostile": HOSTILE},
        seeds,
        strengths,
        adapters=adapters,
        width=size[0],
        height=size[1],
    )
    made = {}
    with open_ledger(folder) as ledger:
        for job in jobs:
            contents = (AdapterContent(job.adapter.encode().hex().ljust(64, "0")),) if job.adapter else ()
            identity = Identity("base", None, contents, "int8", wrapped=True)
            key = job_key(job, identity)
            path = ledger.path_for(key, job)
            write_image(path, draw(job), job, identity)
            ledger.add(key, path, describe(job, identity))
            made[key] = job
    return made


@contextmanager
def serving(folder: Path) -> Iterator[ThreadingHTTPServer]:
    """The gallery's server at work on a folder, in a thread."""
    server = gallery_server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
