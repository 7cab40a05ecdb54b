"""Shim: accelerate's regional compilation compiles the blocks that are run.

Why: under mixed precision accelerate 1.14 puts a `forward` of its own into the model's instance, bound to that model,
and `compile_regions` then copies the instance's dictionary into a new model with compiled blocks: the new model's
forward is the old model's, and its blocks are the old ones. `dynamo_use_regional_compilation` compiles nothing, and
says nothing. accelerate 1.15 has it fixed.
Here: the repeated blocks are compiled where they are, by `Module.compile`, which keeps the names of their weights too.
Bound to: the profiles that set `dynamo_use_regional_compilation`.
Seen, 2026-11-24, SimpleTuner 4.8.0 with accelerate's own: no frame traced in a whole run; with this: each block's.
"""

from typing import Any

MODULES = ("accelerate.accelerator",)


def apply(accelerator: Any) -> None:
    """Replace what `Accelerator.prepare_model` calls."""
    if hasattr(accelerator, "compile_regions"):
        accelerator.compile_regions = compile_regions


def compile_regions(module: Any, **options: Any) -> Any:
    """Compile the repeated blocks of a model in place; the outermost ones, and only those."""
    count = _compile(module, options)
    print(f"fluxkit: {count} blocks are compiled", flush=True)
    return module


def _compile(module: Any, options: dict[str, Any]) -> int:
    count = 0
    for child in module.children():
        # By name: torch need not be there yet when this module is loaded.
        listed = any(cls.__name__ == "ModuleList" for cls in type(child).__mro__)
        blocks = list(child) if listed else []
        if len(blocks) > 1 and len({type(block) for block in blocks}) == 1:
            for block in blocks:
                block.compile(**options)
            count += len(blocks)
        else:
            count += _compile(child, options)
    return count
