"""Everything in conf/ composes, and its `_target_` nodes fit the classes they name."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from finr1.cli import check, compose, nodes
from finr1.run.fingerprints import subtree
from finr1.run.stages import COMMANDS, PIPELINE, STAGES, WALKS, chosen
from finr1.settings.root import RootConfig
from tests.helpers.runner import REPO

GROUPS = {  # group -> the override that chooses one of its files
    "source": "source=[{}]",
    "judge": "judge@judge.{role}=[{}]",
    "reward": "reward=[{}]",
    "benchmark": "benchmark=[{}]",
    "engine": "engine@engine.teacher={}",
    "model": "model={}",
    "trainer": "trainer={}",
    "logger": "logger={}",
    "stage": "stage={}",
    "experiment": "+experiment={}",
}
FILES = sorted(path.relative_to(compose.CONF) for path in compose.CONF.rglob("*.yaml") if path.name != "config.yaml")
EXPERIMENTS = sorted(path.stem for path in (compose.CONF / "experiment").glob("*.yaml"))
TABLE = "finr1.parts.source.table.TableSource"
GOLDEN = REPO / "tests" / "golden" / "conf"


@functools.cache
def composed(name: str) -> DictConfig:
    """An experiment, composed once; read-only."""
    cfg = compose.compose([f"+experiment={name}"])
    OmegaConf.set_readonly(cfg, True)
    return cfg


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINR1_DATA", raising=False)


def test_every_folder_of_conf_is_a_known_group() -> None:
    assert {path.name for path in compose.CONF.iterdir() if path.is_dir()} == set(GROUPS)


def role_of(name: str) -> str:
    return "reasoning" if name.startswith("reasoning") else "answer"


def fits(cfg: DictConfig, group: str, role: str = "") -> None:
    """Check it against the schema, and the group's nodes against their constructors."""
    compose.typed(cfg)
    values = compose.plain(cfg)
    nodes.check_keys(values, RootConfig)
    places = {"engine": ["engine.teacher"], "judge": [f"judge.{role}"], "experiment": [*nodes.GROUPS, "trainer"]}
    for key in places.get(group, [group]):
        nodes.check_nodes(subtree(values, key), key)


def marked(file: Path) -> Any:
    """Composing a single part of a list is a slow test: the fast one composes all parts together."""
    alone = "[{}]" in GROUPS[file.parent.name]
    return pytest.param(file, id=str(file), marks=pytest.mark.slow if alone else [])


@pytest.mark.parametrize("file", list(map(marked, FILES)))
def test_every_yaml_composes_and_its_nodes_fit_their_constructors(file: Path) -> None:
    group, name = file.parent.name, file.stem
    role = role_of(name)
    cfg = composed(name) if group == "experiment" else compose.compose([GROUPS[group].format(name, role=role)])
    fits(cfg, group, role)
    if group == "stage":
        assert cfg.stage == name


@pytest.mark.parametrize(
    ("group", "role"),
    [("source", ""), ("judge", "answer"), ("judge", "reasoning"), ("reward", ""), ("benchmark", "")],
)
def test_all_parts_of_a_list_compose_together(group: str, role: str) -> None:
    names = [file.stem for file in FILES if file.parent.name == group and role in ("", role_of(file.stem))]
    cfg = compose.compose([GROUPS[group].format(",".join(names), role=role)])
    fits(cfg, group, role)
    assert sorted(subtree(cfg, f"judge.{role}" if role else group)) == sorted(names)


@pytest.mark.parametrize(
    "file", [f for f in FILES if f.parent.name in ("source", "judge", "reward", "benchmark")], ids=str
)
def test_a_plug_in_is_keyed_by_its_files_name_and_its_target_is_of_that_name(file: Path) -> None:
    node = OmegaConf.load(compose.CONF / file)
    assert list(node) == [file.stem]
    target = node[file.stem]["_target_"]
    if target == TABLE:  # yaml alone: its rows are called after the file
        assert node[file.stem]["name"] == file.stem
    elif file.parent.name != "benchmark":  # a benchmark may be made of a source's held-out rows
        assert f"finr1.parts.{file.parent.name}.{file.stem}." in target


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name == "source"], ids=str)
def test_a_source_states_its_licence(file: Path) -> None:
    licence = OmegaConf.load(compose.CONF / file)[file.stem]["licence"]
    assert licence == "unknown" or re.fullmatch(r"MIT|Apache-2\.0|CC-BY(-NC)?(-SA)?-4\.0", licence)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_has_the_name_of_its_file_and_a_comment_for_help(name: str) -> None:
    lines = (compose.CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_" and re.match(r"# \S.{20,}", lines[1])
    assert composed(name).name == name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_the_parts_and_lengths_its_stages_need(name: str) -> None:
    cfg = composed(name)
    names = [stage.name for stage in chosen(cfg.stage)]
    check.check_settings(compose.typed(cfg), compose.plain(cfg), names)


def test_the_bare_command_is_the_quickstart_pipeline() -> None:
    bare = compose.compose()
    assert bare == compose.compose(["+experiment=quickstart"]) == compose.compose(["experiment=quickstart"])
    assert (bare.name, bare.stage, bare.model.path) == ("quickstart", PIPELINE, "embedded:smollm2_135m")
    assert list(bare.reward) == ["format", "accuracy"] and list(bare.source) == list(bare.benchmark) == ["worked"]
    assert [subtree(bare, f"engine.{role}._target_") for role in ("teacher", "policy")] == [
        "finr1.parts.engine.worked.engine.WorkedEngine",
        "finr1.parts.engine.vllm.engine.VllmEngine",
    ]
    assert bare.source.worked.chinese_share <= 0.1 and bare.benchmark.worked.limit >= 256


def test_stage_files_and_the_table_of_stages_agree() -> None:
    assert {path.stem for path in (compose.CONF / "stage").glob("*.yaml")} == {*WALKS, *STAGES, *COMMANDS}


def test_the_settings_in_the_table_of_stages_exist() -> None:
    values = compose.plain(compose.compose())
    for stage in STAGES.values():
        for key in stage.settings:
            assert subtree(values, key) is not None or key == "engine.judge", f"{stage.name}: {key}"


def test_engine_nodes_carry_the_runs_model_and_seed() -> None:
    cfg = compose.typed(compose.compose(["seed=7", "model.max_model_len=512"]))
    assert cfg.engine["policy"]["seed"] == 7
    assert cfg.engine["policy"]["model"] == cfg.model and cfg.model.max_model_len == 512


def test_the_teacher_and_the_policy_can_be_one_engine() -> None:
    cfg = compose.typed(compose.compose(["engine@engine.teacher=vllm"]))
    assert cfg.engine["teacher"] == cfg.engine["policy"]


def test_grpo_fin_runs_on_the_small_model_too() -> None:
    small = ["model=smollm2_135m", "trainer=cpu", "engine@engine.policy=vllm", "logger=local"]
    short = ["grpo.sampling.max_new_tokens=64", "evaluate.sampling.max_new_tokens=64"]
    cfg = compose.typed(compose.compose(["+experiment=grpo_fin", *small, *short]))
    assert (cfg.stage, cfg.model.name, cfg.trainer["fit"]["accelerator"]) == ("grpo", "smollm2_135m", "cpu")
    assert cfg.engine["policy"].get("sleep", False) is False and cfg.logger == {}


def test_the_composed_grpo_fin_equals_the_reviewed_file() -> None:
    """To accept a change: `python -m finr1 +experiment=grpo_fin --cfg job > tests/golden/conf/grpo_fin.yaml`."""
    now = OmegaConf.to_yaml(compose.compose(["+experiment=grpo_fin"]))
    assert now.rstrip() == (GOLDEN / "grpo_fin.yaml").read_text(encoding="utf-8").rstrip()


def test_plain_values_hold_no_secrets() -> None:
    over = ["+engine.judge={_target_: x.Y, api_key: sk-1, hub_token: t, row_tokens: 5, nested: [{password: p}]}"]
    judge = compose.plain(compose.compose(over))["engine"]["judge"]
    assert judge == {
        "_target_": "x.Y",
        "api_key": "***",
        "hub_token": "***",
        "row_tokens": 5,
        "nested": [{"password": "***"}],
    }


def test_lists_of_parts_are_swept_as_lists() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides(["reward=[format],[format,accuracy]"])
    assert list(override.sweep_string_iterator()) == ["[format]", "[format,accuracy]"]


def test_composing_twice_leaves_nothing_behind() -> None:
    compose.compose()
    assert not GlobalHydra.instance().is_initialized()
    with pytest.raises(HydraException):
        compose.compose(["reward=[nope]"])
    assert not GlobalHydra.instance().is_initialized()


class Part:
    """A class with a signature to check against."""

    def __init__(self, needed: int, other: str = "x", *, third: float = 1.0) -> None: ...


def takes_anything(*args: int, **more: int) -> None: ...


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"needed": 1, "othr": "y"}, r"reward.p.othr=y: .*Part has no such setting; did you mean other\?"),
        ({"other": "y"}, r"reward.p.needed=None: .*Part needs it; set reward.p.needed=<value>"),
        ({"_target_": "finr1.parts.reward.formt.Format"}, r"reward.p._target_=.*cannot be imported"),
        ({"_target_": f"{__name__}.Prt"}, r"_target_=.*has no Prt; did you mean Part\?"),
        ({"_target_": "Part"}, "not a dotted path"),
    ],
)
def test_a_node_that_does_not_fit_its_constructor_is_one_error_line(node: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        nodes.check_nodes({"p": {"_target_": f"{__name__}.Part", **node}}, "reward")
    assert "\n" not in str(caught.value)


def test_nodes_that_fit_pass() -> None:
    nodes.check_nodes({"p": {"_target_": f"{__name__}.Part", "needed": 1, "third": 2.0}}, "reward")
    nodes.check_nodes({"p": {"_target_": f"{__name__}.Part", "_partial_": True}}, "reward")
    nodes.check_nodes({"p": {"_target_": f"{__name__}.takes_anything", "a": 1}}, "reward")
    assert inspect.signature(Part).parameters["needed"].default is inspect.Parameter.empty


def test_a_fault_deep_inside_a_node_is_found() -> None:
    node = {"_target_": f"{__name__}.takes_anything", "source": {"_target_": f"{__name__}.Part", "needed": 1, "x": 2}}
    with pytest.raises(ValueError, match=r"benchmark\.b\.source\.x=2"):
        nodes.check_nodes({"b": node}, "benchmark")


def test_values_for_a_part_that_was_not_chosen_are_refused() -> None:
    with pytest.raises(ValueError, match=r"benchmark\.worked=\{…\}: values for a part that was not chosen"):
        nodes.check_nodes({"worked": {"limit": 4}}, "benchmark")


@pytest.mark.parametrize(
    ("group", "choice", "left"),
    [
        ("benchmark", "benchmark=[finqa]", ["finqa"]),
        ("benchmark", "benchmark=[finqa,worked]", ["finqa", "worked"]),
        ("judge.answer", "judge@judge.answer=[exact]", ["exact"]),
    ],
)
def test_a_list_on_the_command_line_drops_an_experiments_values_for_other_parts(
    group: str, choice: str, left: list[str]
) -> None:
    values = subtree(compose.plain(compose.compose(["+experiment=eval_fin_judge", choice])), group)
    assert sorted(values) == left
    nodes.check_nodes(values, group)
    if "finqa" in left:
        assert values["finqa"]["limit"] == 1000, "its values for the chosen parts stay"


def test_command_line_values_for_a_part_left_out_are_a_mistake() -> None:
    given = ["+experiment=eval_fin", "benchmark=[finqa]", "benchmark.tfns.limit=3"]
    assert sorted(compose.compose(given).benchmark) == ["finqa", "tfns"]


def test_pipelines_run_stages_in_their_order() -> None:
    order = list(STAGES)
    for walk in WALKS.values():
        assert list(walk) == sorted(walk, key=order.index)
    assert "export" not in WALKS[PIPELINE], "the quickstart needs no export"
    assert [stage.name for stage in chosen("data")] == ["questions", "distil", "filter", "export", "report"]
