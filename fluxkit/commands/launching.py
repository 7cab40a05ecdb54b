"""The launch of an assembled project: the shims that it needs, the variables and the webhook that let it be watched."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluxkit.commands.assemble import Assembled, has_cuda
from fluxkit.project.load import Project
from fluxkit.trainer import launch, runs
from fluxkit.trainer.control import VARIABLE, signal_file
from fluxkit.trainer.environment import Environment
from fluxkit.trainer.listener import Listener, around_proxies
from fluxkit.trainer.shims import shims_for, write_shims
from fluxkit.trainer.sources.checkout import open_checkout
from fluxkit.trainer.topology import Topology


def plan_run(
    project: Project, assembled: Assembled, folder: Path, environment: Environment, local: bool, topology: Topology
) -> launch.RunPlan:
    """The launch of an assembled project in a folder: `train`'s, and the measured one of `fit`.

    Args:
        project: the project.
        assembled: its rendered config, with paths into `folder`.
        folder: becomes the working folder.
        environment: the trainer's.
        local: whether the base model is a folder, and the hub out of bounds.
        topology: the processes that train together.
    """
    config: Any = assembled.rendered.documents["config.json"]
    names = shims_for(
        assembled.release.version,
        rehearsal_without_cuda=assembled.request.rehearsal is not None and not has_cuda(project),
        options={name.lstrip("-"): value for name, value in config.items()},
        processes=topology.processes,
    )
    shim_env = write_shims(project.cache_dir / "shims", names) if names else {}
    return launch.plan_launch(
        environment_bin=environment.python.parent,  # not resolved: the interpreter is a link out of the environment
        run_dir=folder,
        extra_env={**assembled.rendered.env, **shim_env, **_watching_env(assembled.rendered.env, folder)},
        offline=local,
        checkout=open_checkout(environment.checkout) if environment.checkout else None,
        topology=topology,
        shared_config=assembled.request.config_dir if topology.rank else None,
        ignores_config_path="accelerate-config-path" in {defect.id for defect in assembled.release.defects},
    )


def watched(assembled: Assembled, run: runs.Run, listener: Listener | None) -> Assembled:
    """The config with fluxkit's own webhook in it; one that the user set stays, and fluxkit reads the output alone."""
    documents = dict(assembled.rendered.documents)
    config: Any = documents["config.json"]
    if listener is None or "--webhook_config" in config:
        return assembled
    documents["config.json"] = {**config, "--webhook_config": str(listener.write_config(run.config_dir))}
    return replace(assembled, rendered=replace(assembled.rendered, documents=documents))


def _watching_env(rendered: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What lets the trainer be asked for a checkpoint, and keeps its webhooks on this machine."""
    proxies = around_proxies({**os.environ, **rendered})
    return {**proxies, VARIABLE: str(signal_file(folder).path)}
