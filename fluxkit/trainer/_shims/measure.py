"""Not a repair: measures a run from inside, for `fluxkit fit --measure` and `benchmarks/profiles.py` alone.

Why inside: only the process that trains can ask PyTorch for its peaks, and only it can cap its allocator to what a
smaller card would have. Bound to no release: phases are recognised by what any SimpleTuner calls in its libraries (T5's
forward, the VAE's encode, loading a transformer, accelerate's accumulate, save_state and end_training, a pipeline's
progress bar, an optimizer's step); where a library lacks one of them, that phase is absent, and nothing else changes.
Writes JSON lines to FLUXKIT_MEASURE_FILE: `{"phase", "start"}` when a phase begins, the same with `end` and the peaks
when it ends; each validation image is a record of its own. Seconds of the monotonic clock; bytes. `{"phase": "finish"}`
says that the final weights are written: SimpleTuner calls end_training after that. With FLUXKIT_MEASURE_TURN several
runs start side by side and take turns (`Turn`). Seen, 2026-11-24: all phases of a rehearsal with SimpleTuner 4.8.0, on
a CPU, where there are no GPU figures.
"""

import atexit
import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MODULES = (
    "torch.nn.functional",
    "torch.optim.optimizer",
    "transformers.models.t5.modeling_t5",
    "diffusers.models.modeling_utils",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.pipelines.pipeline_utils",
    "accelerate.accelerator",
)
_GIB = 2**30


class Turn:
    """Lets runs that started side by side prepare by turns, and train alone: only what is timed must be alone.

    A run asks by a file, waits for the word, and has ended a part of its work when it asks for the next one. Who gives
    the words is `benchmarks/turns.py`.

    Args:
        path: `<path>.encode`, `<path>.load` and `<path>.train` are asked for and answered by `<path>.encode.go` …;
            `<path>.done` says that the card is no longer needed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._asked: set[str] = set()

    def ask(self, what: str) -> None:
        """Wait for the word for a part of the work; the second time it is there already."""
        if what in self._asked:
            return
        self._asked.add(what)
        torch = _cuda()
        if torch is not None:
            torch.cuda.empty_cache()  # the others must find the card as free as if this one were not there
        self._write(what)
        while not os.path.exists(f"{self._path}.{what}.go"):  # noqa: PTH110
            time.sleep(0.1)

    def done(self) -> None:
        """Let the next one train: what comes now is timed by nobody."""
        if "train" in self._asked:
            self._write("done")

    def _write(self, what: str) -> None:
        with open(f"{self._path}.{what}", "w"):  # noqa: PTH123
            pass


class Probe:
    """One process's phases, written as they end.

    Args:
        path: the file of JSON lines.
        cap_gib: what PyTorch's allocator may take; None leaves it alone.
        turn: where several runs take turns.
    """

    def __init__(self, path: str, cap_gib: float | None, turn: Turn | None = None) -> None:
        self._path = path
        self._cap = cap_gib
        self._turn = turn
        self._lock = threading.RLock()
        self._phase = ""
        self._start = 0.0
        self._shape: dict[str, int] = {}

    def enter(self, phase: str, *, again: bool = False) -> None:
        """End the phase that goes on, and begin another; where it is the same, only with `again`."""
        with self._lock:
            if phase == self._phase and not again:
                return
            self.leave()
            self._limit()
            self._wait(phase)
            self._phase, self._start, self._shape = phase, time.monotonic(), {}
            self._write({"phase": phase, "start": self._start})

    def leave(self, **more: Any) -> None:
        """Write what the phase took."""
        with self._lock:
            if self._phase:
                record = {"phase": self._phase, "start": self._start, "end": time.monotonic()}
                self._write({**record, **self._peaks(), **self._shape, **more})
            self._phase = ""

    def loss(self, prediction: Any) -> None:
        """Note the size of what is trained: latents of an eighth of the picture's edge."""
        if self._phase == "training_step" and getattr(prediction, "ndim", 0) == 4:
            self._shape = {"edge": int(prediction.shape[-1]) * 8, "batch": int(prediction.shape[0])}

    def stepped(self) -> None:
        """An optimizer step is done."""
        if self._phase == "training_step":
            torch = _cuda()
            if torch is not None:
                torch.cuda.synchronize()
            self.enter("between_steps")

    def begin(self) -> None:
        """The first model is about to be loaded: what comes before needs no card."""
        if self._turn is not None:
            self._turn.ask("encode")

    def finish(self) -> None:
        """The final weights are written: nothing is measured from here on."""
        self.enter("finish")
        if self._turn is not None:
            self._turn.done()

    def _wait(self, phase: str) -> None:
        if self._turn is not None and phase == "load":
            self._turn.ask("load")
        elif self._turn is not None and phase == "training_step":
            self._turn.ask("train")

    def _limit(self) -> None:
        torch = _cuda()
        if torch is not None and self._cap is not None:
            total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, self._cap * _GIB / total))
            self._cap = None

    def _peaks(self) -> dict[str, int]:
        found = _resident()
        torch = _cuda()
        if torch is not None:
            found["allocated"] = torch.cuda.max_memory_allocated()
            found["reserved"] = torch.cuda.max_memory_reserved()
            torch.cuda.reset_peak_memory_stats()
        return found

    def _write(self, record: dict[str, Any]) -> None:
        # Opened for each line: a run that is killed has lost nothing.
        with open(self._path, "a", encoding="utf-8") as file:  # noqa: PTH123  # no pathlib in every process
            file.write(json.dumps(record) + "\n")


def _cuda() -> Any:
    """Torch, once it has begun to use a GPU; asking earlier would begin it, in processes that must not."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return torch if cuda is not None and cuda.is_initialized() else None


def _resident() -> dict[str, int]:
    """This process's memory now, and the part of it that no file backs; empty where there is no /proc."""
    names = {"VmRSS": "resident", "RssAnon": "anonymous"}
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            pairs = [line.split(":", 1) for line in file if ":" in line]
    except OSError:
        return {}
    return {names[key]: int(value.split()[0]) * 1024 for key, value in pairs if key in names}


def _probe() -> "Probe | None":
    path = os.environ.get("FLUXKIT_MEASURE_FILE")
    if not path or os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    cap = os.environ.get("FLUXKIT_MEASURE_CAP_GIB")
    turn = os.environ.get("FLUXKIT_MEASURE_TURN")
    return Probe(path, float(cap) if cap else None, Turn(turn) if turn else None)


_PROBE = _probe()
if _PROBE is not None:
    # What a failed run was doing when it failed: its last phase has no successor.
    atexit.register(_PROBE.leave, last=True)


def apply(module: Any) -> None:
    """Put the marks into one of `MODULES`."""
    if _PROBE is not None:
        _MARKS[module.__name__](module, _PROBE)


def _before(owner: Any, name: str, act: Callable[..., None]) -> None:
    """Call `act` with the arguments of `owner.name` before it runs; nothing where there is no such thing."""
    original = owner.__dict__.get(name) if owner is not None else None
    if original is None:
        return
    is_class_method = isinstance(original, classmethod)
    function = original.__func__ if is_class_method else original

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        act(*args)
        return function(*args, **kwargs)

    setattr(owner, name, classmethod(wrapper) if is_class_method else wrapper)


def _functional(module: Any, probe: Probe) -> None:
    _before(module, "mse_loss", lambda prediction=None, *_: probe.loss(prediction))


def _optimizer(module: Any, probe: Probe) -> None:
    module.register_optimizer_step_post_hook(lambda *_: probe.stepped())


def _t5(module: Any, probe: Probe) -> None:
    _before(getattr(module, "T5EncoderModel", None), "forward", lambda *_: probe.enter("text_encoding"))


def _models(module: Any, probe: Probe) -> None:
    def loading(cls: Any = None, *_: Any) -> None:
        probe.begin()
        if "Transformer" in getattr(cls, "__name__", ""):
            probe.enter("load")

    _before(getattr(module, "ModelMixin", None), "from_pretrained", loading)


def _vae(module: Any, probe: Probe) -> None:
    _before(getattr(module, "AutoencoderKL", None), "encode", lambda *_: probe.enter("vae_caching"))


def _pipelines(module: Any, probe: Probe) -> None:
    owner = getattr(module, "DiffusionPipeline", None)
    _before(owner, "progress_bar", lambda *_: probe.enter("validation_image", again=True))


def _accelerator(module: Any, probe: Probe) -> None:
    owner = getattr(module, "Accelerator", None)
    _before(owner, "accumulate", lambda *_: probe.enter("training_step"))
    _before(owner, "save_state", lambda *_: probe.enter("checkpoint"))
    _before(owner, "end_training", lambda *_: probe.finish())


_MARKS: dict[str, Callable[[Any, Probe], None]] = dict(
    zip(MODULES, (_functional, _optimizer, _t5, _models, _vae, _pipelines, _accelerator), strict=True)
)
