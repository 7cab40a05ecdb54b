"""`sample`: jobs, minus what the folder has, through an engine, into a ledger and a gallery."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fluxkit.errors import FluxkitError, InterruptedByUser, UserError
from fluxkit.sampling.gallery import GALLERY, write_gallery
from fluxkit.sampling.ledger import Ledger, open_ledger
from fluxkit.sampling.plan import Identity, SamplingPlan, identities, job_key
from fluxkit.sampling.quantizers import check_first_block_cache, quantizer
from fluxkit.sampling.work import Engine, Failed, Made, Task, work_of
from fluxkit.sampling.worker import LocalEngine
from fluxkit.sampling.writer import describe


@dataclass(frozen=True)
class SampleReport:
    """What `sample` did.

    Args:
        made: images made now.
        skipped: images that were there already.
        modules: modules that an adapter changed; 0 without an adapter, or when nothing was missing.
        folder: where the images are.
        gallery: the page that shows them.
        failed: jobs that gave no image, while others did.
        effects: by adapter name, how far it moves a prediction of the model (relative); only of what was loaded.
    """

    made: int
    skipped: int
    modules: int
    folder: Path
    gallery: Path
    failed: tuple[Failed, ...] = ()
    effects: Mapping[str, float] = field(default_factory=dict)


def sample(
    plan: SamplingPlan,
    *,
    on_progress: Callable[[int, int], None],
    engine: Engine | None = None,
    verify: bool = False,
) -> SampleReport:
    """Make the images of a plan that its folder does not have yet.

    Args:
        plan: what to make, and where.
        on_progress: called after each image with the number made and the number to make.
        engine: who makes them; this process by default.
        verify: read every image that is there again, instead of trusting its size and time.

    Raises:
        UserError: the base model, the adapter or the folder can't be used.
        GpuMemoryError: not even one image at a time fits.
        InterruptedByUser: Ctrl-C; what was made is kept, and the next run goes on from there.
    """
    quantizer(plan.quantize)  # refuses before anything is loaded
    check_first_block_cache(plan.quantize, plan.first_block_cache)
    known = identities(plan)
    with open_ledger(plan.out, verify=verify) as ledger:
        wanted = {job_key(job, known[job.adapter]): job for job in plan.jobs}
        missing = {key: job for key, job in wanted.items() if not ledger.has(key)}
        tasks = [Task(key, job, ledger.path_for(key, job, plan.image_format)) for key, job in missing.items()]
        run = _Run(ledger, known, tasks)
        try:
            if tasks:
                run.through(engine or LocalEngine(), plan, on_progress)
        except BaseException as error:
            with suppress(FluxkitError, OSError):  # what went wrong first is what the user should read
                ledger.check_folder()
                write_gallery(ledger)
            if not isinstance(error, KeyboardInterrupt):
                raise
            raise InterruptedByUser(
                f"Interrupted: {run.made} of {len(tasks)} images are made, in {plan.out}.",
                fix="Run the same command again for the rest.",
            ) from error
        gallery = plan.out / GALLERY
        if run.made or not gallery.is_file():
            write_gallery(ledger)
    skipped = len(wanted) - len(tasks)
    return SampleReport(run.made, skipped, run.modules, plan.out, gallery, tuple(run.failed), run.effects)


class _Run:
    """The one who writes the ledger while an engine makes images."""

    def __init__(self, ledger: Ledger, identities: dict[str, Identity], tasks: list[Task]) -> None:
        self._ledger, self._identities = ledger, identities
        self._tasks = {task.key: task for task in tasks}
        self.made = self.modules = 0
        self.failed: list[Failed] = []
        self.effects: dict[str, float] = {}

    def through(self, engine: Engine, plan: SamplingPlan, on_progress: Callable[[int, int], None]) -> None:
        """Have the tasks made, each recorded as it comes."""
        tasks = list(self._tasks.values())
        try:
            for outcome in engine.make(work_of(plan, self._identities, tasks), tasks):
                self._record(outcome)
                if isinstance(outcome, Made):
                    on_progress(self.made, len(tasks))
        except BaseException as error:
            with suppress(FluxkitError):
                self._keep(engine)
            if isinstance(error, UserError):
                self._ledger.check_folder()  # says more than that a file can't be written
            raise
        self._keep(engine)

    def _keep(self, engine: Engine) -> None:
        """Record what an engine had finished when it was stopped."""
        for outcome in engine.stop():
            self._record(outcome)

    def _record(self, outcome: Made | Failed) -> None:
        if isinstance(outcome, Failed):
            self.failed.append(outcome)
            return
        task = self._tasks[outcome.key]
        self._ledger.add(task.key, task.path, describe(task.job, self._identities[task.job.adapter]))
        self.made += 1
        self.modules = max(self.modules, outcome.modules)
        if outcome.effect is not None:
            self.effects[task.job.adapter] = outcome.effect
