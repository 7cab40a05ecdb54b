"""Shim: several processes train one LyCORIS adapter, not one each.

Why: LyCORIS hooks into the base model's forward and keeps its weights in a network of its own, which SimpleTuner hangs
on the accelerator (`_lycoris_wrapped_network`) and never wraps in DistributedDataParallel. The base model that it does
hand over has nothing to train, so accelerate leaves it alone on GPUs, and no gradient is ever exchanged: each process
trains an adapter of its own, from other first weights, on its own share of the photos, and the first one's is saved.
(On a CPU accelerate wraps it all the same, and DistributedDataParallel dies: "not needed when a module doesn't have
any parameter that requires a gradient".)
Here: what DistributedDataParallel does. The first weights are the main process's, and gradients are averaged where an
optimizer step follows. The weights are handed round again now and then, because SimpleTuner's bf16 optimizers round at
random, each process in its own way.
Bound to: the releases of the defect `lycoris-sync` in releases.toml, where several processes train LyCORIS.
Seen, 2026-11-24, SimpleTuner 4.8.0, 2 CPU processes, 4 steps, sums of the adapter's absolute weights: without it 183.12
and 180.28 before the first step, 183.91 and 180.98 after the third; with it 183.12 in both, 183.855 and 183.854.
"""

import functools
from typing import Any

MODULES = ("accelerate.accelerator",)
EVERY = 100  # optimizer steps from one handing round to the next


def apply(accelerator: Any) -> None:
    """Wrap what SimpleTuner calls of `Accelerator`: `prepare`, `prepare_model` and `backward`."""
    import torch

    cls = accelerator.Accelerator
    prepare, prepare_model, backward = cls.prepare, cls.prepare_model, cls.backward

    def weights(self: Any) -> list[Any]:
        network = getattr(self, "_lycoris_wrapped_network", None)
        return [one for one in network.parameters() if one.requires_grad] if network and self.num_processes > 1 else []

    def hand_round(self: Any) -> None:
        for weight in weights(self):
            torch.distributed.broadcast(weight.data, 0)

    @functools.wraps(prepare)
    def prepare_and_hand_round(self: Any, *args: Any, **options: Any) -> Any:
        hand_round(self)
        return prepare(self, *args, **options)

    @functools.wraps(prepare_model)
    def prepare_what_trains(self: Any, model: Any, *args: Any, **options: Any) -> Any:
        if self.distributed_type == "MULTI_CPU" and not any(one.requires_grad for one in model.parameters()):
            options["evaluation_mode"] = True  # all of it but DistributedDataParallel
        return prepare_model(self, model, *args, **options)

    @functools.wraps(backward)
    def backward_and_average(self: Any, *args: Any, **options: Any) -> Any:
        result = backward(self, *args, **options)
        if not self.sync_gradients:
            return result
        shared = weights(self)
        for weight in shared:
            if weight.grad is None:  # not used in this process's batch, and maybe in another's
                weight.grad = torch.zeros_like(weight)
            torch.distributed.all_reduce(weight.grad)
            weight.grad.div_(self.num_processes)
        if shared:
            self._fluxkit_steps = getattr(self, "_fluxkit_steps", 0) + 1
            if self._fluxkit_steps == 1 and self.is_main_process:
                print(f"fluxkit: {self.num_processes} processes average {len(shared)} gradients", flush=True)
            if self._fluxkit_steps % EVERY == 0:
                hand_round(self)
        return result

    cls.prepare, cls.prepare_model, cls.backward = prepare_and_hand_round, prepare_what_trains, backward_and_average
