"""A little model prepared with regional compilation: which of its blocks run compiled."""

import os
from pathlib import Path

from fluxkit.process import run
from fluxkit.trainer.shims import write_shims

COMPILE = """
import torch
from accelerate import Accelerator
from accelerate.utils import TorchDynamoPlugin

ran = []

class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
    def forward(self, x):
        ran.append(torch.compiler.is_compiling())
        return self.linear(x)

class Blocks(torch.nn.ModuleList):
    pass

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = Blocks(Block() for _ in range(3))
        self.other = torch.nn.Linear(4, 4)
    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.other(x)

model = Model()
names = list(model.state_dict())
plugin = TorchDynamoPlugin(backend="eager", use_regional_compilation=True)
prepared = Accelerator(mixed_precision="bf16", cpu=True, dynamo_plugin=plugin).prepare(model)
prepared(torch.zeros(1, 4))
print(sum(ran), len(ran), list(prepared.state_dict()) == names)
"""


def compile_with(python: str, tmp_path: Path, names: tuple[str, ...]) -> str:
    """How many blocks ran compiled, of how many, and whether the names of the weights stayed."""
    env = {**os.environ, **write_shims(tmp_path / "shims", names)}
    return " ".join(run([python, "-W", "ignore", "-c", COMPILE], env=env).stdout.split())
