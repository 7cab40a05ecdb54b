"""The probe as the trainer's interpreter runs it: a script, on made-up trainers of two eras."""

import json
import sys
from pathlib import Path

import pytest

from fluxkit.process import Completed, run
from fluxkit.trainer import probe

PARSER = """
import argparse
def get_argument_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint_step_interval", "--checkpointing_steps", type=int, default=500)
    parser.add_argument("--model_family", required=True, choices=["flux", "sd3"], help="upstream's words")
    parser.add_argument("--text", default="sentence " * 20)
    return parser
"""


def ask(root: Path, package: str, code: str) -> Completed:
    folder = root / package / "helpers" / "configuration" if package else root / "helpers" / "configuration"
    folder.mkdir(parents=True)
    (folder / "cmd_args.py").write_text(code)
    return run([sys.executable, probe.__file__], env={"PYTHONPATH": str(root)}, timeout=60)


@pytest.mark.parametrize("package", ["simpletuner", ""])
def test_the_options_come_out_without_upstreams_text(tmp_path: Path, package: str) -> None:
    done = ask(tmp_path, package, PARSER)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1].removeprefix(probe.MARK)) == {
        "checkpoint_step_interval": {"aliases": ["checkpointing_steps"], "type": "int", "default": 500},
        "model_family": {"type": "str", "choices": ["flux", "sd3"], "required": True},
        "text": {"type": "str"},
    }


def test_what_the_trainer_cannot_import_is_named(tmp_path: Path) -> None:
    done = ask(tmp_path, "simpletuner", "import no_such_library\n")
    assert done.returncode != 0
    assert "No module named 'no_such_library'" in done.stderr.splitlines()[-1]
