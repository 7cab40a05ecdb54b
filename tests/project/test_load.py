from pathlib import Path

import pytest

from fluxkit.errors import UserError
from fluxkit.project.load import find_project, load_project

MINIMAL = '[project]\nname = "p"\ntrigger = "behitek"\n'


def make(root: Path, config: str = MINIMAL, prompts: str | None = None) -> Path:
    (root / "fluxkit.toml").write_text(config, encoding="utf-8")
    if prompts is not None:
        (root / "prompts.toml").write_text(prompts, encoding="utf-8")
    return root


def problem(root: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_project(root)
    return raised.value.message


def test_defaults_are_the_guides(tmp_path: Path) -> None:
    config = load_project(make(tmp_path)).config
    assert config.dataset.resolutions == (1024, 512)
    assert config.dataset.repeats == 1000
    assert (config.train.steps, config.train.seed, config.train.learning_rate) == (10_000, 42, 1e-4)
    assert (config.sample.num_inference_steps, config.sample.guidance_scale) == (20, 3.0)
    assert (config.sample.seeds_per_prompt, config.sample.quantize) == (30, "auto")


def test_paths_lie_in_the_project(tmp_path: Path) -> None:
    project = load_project(make(tmp_path))
    assert project.dataset_dir == project.root / "dataset"
    assert {project.cache_dir.name, project.runs_dir.name, project.samples_dir.name} == {"cache", "runs", "samples"}
    assert project.lock_file == project.root / "fluxkit.lock"


def test_home_in_the_dataset_path(tmp_path: Path) -> None:
    project = load_project(make(tmp_path, MINIMAL + '[dataset]\npath = "~/photos"\n'))
    assert project.dataset_dir == Path.home() / "photos"


def test_find_project_walks_up(tmp_path: Path) -> None:
    make(tmp_path)
    below = tmp_path / "runs" / "x"
    below.mkdir(parents=True)
    assert find_project(below) == tmp_path.resolve()


def test_no_project_names_init(tmp_path: Path) -> None:
    for call in (find_project, load_project):
        with pytest.raises(UserError, match=r"fluxkit\.toml") as raised:
            call(tmp_path)
        assert "fluxkit init" in raised.value.fix


def test_malformed_toml_names_the_line(tmp_path: Path) -> None:
    message = problem(make(tmp_path, '[project]\nname = "p"\ntrigger = behitek\n'))
    assert "fluxkit.toml" in message
    assert "line 3" in message
    assert "trigger = behitek" in message


def test_an_unclosed_text_is_no_traceback(tmp_path: Path) -> None:
    assert "not valid TOML" in problem(make(tmp_path, MINIMAL + 'x = """'))


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "fluxkit.toml").write_bytes(MINIMAL.encode() + b'# \xff\xfe"')
    assert "UTF-8" in problem(tmp_path)


def test_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "fluxkit.toml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_project(tmp_path).config.project.trigger == "behitek"


def test_unknown_key_names_line_and_nearest(tmp_path: Path) -> None:
    message = problem(make(tmp_path, MINIMAL + "[train]\n# more\nstepz = 3\n"))
    assert "line 6: unknown key `train.stepz`" in message
    assert '"steps"' in message


def test_unknown_table_names_nearest(tmp_path: Path) -> None:
    assert 'line 4: unknown key `trian`. Did you mean "train"?' in problem(make(tmp_path, MINIMAL + "[trian]\n"))


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ('[train]\nsteps = "10"\n', 5, "train.steps"),
        ("[train]\nsteps = 0\n", 5, "train.steps"),
        ("[train]\nlearning_rate = nan\n", 5, "train.learning_rate"),
        ("[sample]\nwidth = 1000\n", 5, "sample.width"),
        ("[sample]\nbatch_size = 'many'\n", 5, "sample.batch_size"),
        ("[dataset]\nrepeats = 1\nresolutions = [\n 1024,\n 5.5]\n", 6, "dataset.resolutions"),
        ("[dataset]\nresolutions = [512, 512]\n", 5, "dataset.resolutions"),
        ("[dataset]\nresolutions = []\n", 5, "dataset.resolutions"),
        ("[simpletuner]\nsource = 'path'\n", 4, "simpletuner"),
        ("[env]\nA = 1\n", 5, "env.A"),
        ("train.options = 3\n", 4, "project.train"),
    ],
)
def test_wrong_value_names_line_and_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    message = problem(make(tmp_path, MINIMAL + text))
    assert f"line {line}:" in message
    assert f"`{key}" in message


def test_all_problems_in_one_message(tmp_path: Path) -> None:
    message = problem(make(tmp_path, '[project]\nname = "p"\n[train]\nsteps = "x"\nfoo = 1\n', "[prompts]\na = 1\n"))
    assert message.startswith("4 problems")
    for part in ("`project.trigger` is missing", "train.steps", "train.foo", "prompts.toml, line 2"):
        assert part in message


def test_options_may_hold_anything(tmp_path: Path) -> None:
    project = load_project(make(tmp_path, MINIMAL + '[train.options]\n"--x" = [1, {a = 2}]\n'))
    assert project.config.train.options == {"--x": [1, {"a": 2}]}


@pytest.mark.parametrize(
    "line",
    ['"a/b" = "x"', '".hidden" = "x"', '"" = "x"', 'a = ""', 'a = "x"\nA = "y"', "a = 3", '"é" = "x"'],
)
def test_bad_prompts_are_named(tmp_path: Path, line: str) -> None:
    assert "prompts.toml, line " in problem(make(tmp_path, MINIMAL, f"[prompts]\n{line}\n"))


def test_misspelt_prompts_table(tmp_path: Path) -> None:
    assert 'Did you mean "prompts"?' in problem(make(tmp_path, MINIMAL, '[prompt]\na = "b"\n'))


def test_prompts_arrive_with_the_trigger_and_otherwise_unchanged(tmp_path: Path) -> None:
    prompts = "[prompts]\na = '''{trigger} says \"{{ hi }}\" {% x %} {0}\n😀 it's'''\nb = 'on a horse'\n"
    project = load_project(make(tmp_path, MINIMAL, prompts))
    assert dict(project.prompts) == {
        "a": 'behitek says "{{ hi }}" {% x %} {0}\n😀 it\'s',
        "b": "behitek on a horse",
    }
