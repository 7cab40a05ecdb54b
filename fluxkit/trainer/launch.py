"""How the trainer is started: argv, working folder, environment; and how it is watched.

The process boundary: fluxkit never imports SimpleTuner (AGPL, and it wants its own torch). It runs the release's own
launcher in the run's folder: `simpletuner train` of a package, `train.sh` of a checkout. Every release reads
`config/config.json` there and writes `debug.log` there; what `train.sh` names relative to its working folder is linked
into it, so that the checkout is never written to and two runs never meet.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fluxkit.files import write_text
from fluxkit.process import stream
from fluxkit.trainer.sources.checkout import Checkout
from fluxkit.trainer.topology import ONE_PROCESS, Topology

# What of the user's environment reaches the trainer. Everything else that could change a run (CONFIG_PATH, ENV,
# ACCELERATE_*, a stray PYTHONPATH) stays out.
_PASSED = (
    "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES",
    "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN",
    "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "OMP_NUM_THREADS",
)  # fmt: skip
_SECRET = frozenset({"TOKEN", "KEY", "SECRET", "PASSWORD"})


@dataclass(frozen=True)
class RunPlan:
    """One launch of the trainer.

    Args:
        argv: the command.
        cwd: the working folder: the run's.
        env: the whole environment of the process.
        files: path in the working folder → text; written by `prepare`.
        links: name in the working folder → what it leads to; made by `prepare`.
        whole_group: whether Ctrl-C must reach every process: a shell waits for its child and tells it nothing.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, Path] = field(default_factory=dict)
    whole_group: bool = False

    def public_env(self) -> dict[str, str]:
        """The environment with tokens masked, for printing."""
        return masked(self.env)


def masked(env: Mapping[str, str]) -> dict[str, str]:
    """Variables by name, the values of secret ones replaced by `***`."""
    return {k: "***" if _SECRET & set(k.upper().split("_")) else v for k, v in sorted(env.items())}


def accelerate_config(topology: Topology) -> str:
    """Text of an accelerate config: with none, the launcher falls back to the user's own, which overrides silently.

    Several CPU processes are "MULTI_GPU" too, and `ACCELERATE_USE_CPU` tells them apart: with "MULTI_CPU" accelerate
    starts one process unless it has MPI, and that one believes itself to be the whole training.
    """
    several = topology.processes > 1
    settings: dict[str, str | int] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "'MULTI_GPU'" if several else "'NO'",
        "machine_rank": topology.rank,
        "main_process_ip": f"'{topology.address}'" if topology.address else "",
        "main_process_port": topology.port or "",
        "main_training_function": "main",
        "mixed_precision": "bf16",
        "num_machines": topology.machines,
        "num_processes": topology.processes,
        "rdzv_backend": "static",
        "same_network": "true",
        "use_cpu": "true" if topology.use_cpu and not several else "false",
    }
    return "".join(f"{name}: {value}\n" for name, value in settings.items() if value != "")


def plan_launch(
    *,
    environment_bin: Path,
    run_dir: Path,
    extra_env: Mapping[str, str],
    offline: bool,
    checkout: Checkout | None = None,
    topology: Topology = ONE_PROCESS,
    shared_config: Path | None = None,
    ignores_config_path: bool = False,
    inherited: Mapping[str, str] | None = None,
) -> RunPlan:
    """Plan the launch of a release.

    Args:
        environment_bin: the `bin` folder of the trainer's environment; `accelerate` must be on PATH.
        run_dir: the working folder: the run's, or for the other machines of a run one in it.
        extra_env: the profile's, the project's and the shims' variables; they win.
        offline: whether the model hub is out of bounds (a local base).
        checkout: the release's own files, for the sources `git` and `path`; None for a package.
        topology: the processes that train together.
        shared_config: the folder of the rendered config where it is not in `run_dir`; linked into it.
        ignores_config_path: the release doesn't look at ACCELERATE_CONFIG_PATH (the defect `accelerate-config-path`).
        inherited: the environment to pass on from; the caller's own by default.
    """
    source = os.environ if inherited is None else inherited
    accelerate = "config/accelerate.yaml" if shared_config is None else "accelerate.yaml"
    env = {name: source[name] for name in _PASSED if name in source}
    env |= {
        "PATH": f"{environment_bin}{os.pathsep}{source.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(environment_bin.parent),
        "ACCELERATE_CONFIG_PATH": str(run_dir / accelerate),
        "TRAINING_NUM_PROCESSES": str(topology.processes),
        "TRAINING_NUM_MACHINES": str(topology.machines),
        "MIXED_PRECISION": "bf16",
        "TRAINING_DYNAMO_BACKEND": "no",
        "CONFIG_BACKEND": "json",
        "ENV": "default",
        "DISABLE_UPDATES": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "SIMPLETUNER_DISABLE_COLORS": "1",
        "PYTHONUNBUFFERED": "1",
        "WANDB_MODE": "disabled",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }
    if topology.processes > 1 and topology.use_cpu:
        env["ACCELERATE_USE_CPU"] = "true"
        if topology.machines == 1:
            env["GLOO_SOCKET_IFNAME"] = "lo"  # else it asks for the address of this machine's name, which may have none
    if ignores_config_path:
        env["ACCELERATE_EXTRA_ARGS"] = f"--config_file={accelerate}"  # it is split at spaces: no absolute path
    if offline:
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    files = {accelerate: accelerate_config(topology)}
    links = {} if shared_config is None else {"config": shared_config}
    if checkout is None:
        argv = (str(environment_bin / "simpletuner"), "train")
        return RunPlan(argv, cwd=run_dir, env=env | dict(extra_env), files=files, links=links)
    env |= _checkout_env(environment_bin.parent) | dict(extra_env)
    # The shims first: their sitecustomize runs the next one on the path.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (extra_env.get("PYTHONPATH"), str(checkout.folder))))
    script = checkout.folder / checkout.script
    # `accelerate launch train.py` or `… simpletuner/train.py`: relative to the working folder.
    linked = "simpletuner" if checkout.packaged else "train.py"
    return RunPlan(
        argv=("bash", "-e", str(script)),
        cwd=run_dir,
        env=env,
        files=files,
        links={**links, linked: checkout.folder / linked},
        whole_group=True,
    )


def _checkout_env(environment: Path) -> dict[str, str]:
    env = {
        "VENV_PATH": str(environment),
        "PYTHONPYCACHEPREFIX": str(environment / "pycache"),  # no __pycache__ in the checkout
    }
    # train.sh puts the folder `nvjitlink` that it finds in the environment in front of LD_LIBRARY_PATH, for CUDA 12;
    # where there is none it would put the system's /lib there.
    if not any(environment.glob("lib/python*/site-packages/nvidia/nvjitlink")):
        env["DISABLE_LD_OVERRIDE"] = "1"
    return env


def prepare(plan: RunPlan) -> None:
    """Write what the launch needs beside the rendered config."""
    for name, text in plan.files.items():
        write_text(plan.cwd / name, text)
    for name, target in plan.links.items():
        link = plan.cwd / name
        if not (link.is_symlink() and link.readlink() == target):
            link.unlink(missing_ok=True)  # a run that goes on after its checkout moved
            link.symlink_to(target)


def launch(
    plan: RunPlan,
    *,
    log: Path,
    on_line: Callable[[str], None],
    on_tick: Callable[[], bool] | None = None,
    on_start: Callable[[int], None] | None = None,
) -> int:
    """Run the trainer to its end; return its exit code. `on_…`: as `process.stream` calls them.

    Raises:
        InterruptedByUser: Ctrl-C; the trainer was asked to stop and has ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    return stream(
        list(plan.argv),
        cwd=plan.cwd,
        env=dict(plan.env),
        on_line=on_line,
        log=log,
        whole_group=plan.whole_group,
        on_tick=on_tick,
        on_start=on_start,
    )
