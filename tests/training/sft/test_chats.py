"""Chats of several turns: the loss mask token by token; packed rows equal single ones; unusable rows; the stage."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from finr1.core.errors import ConfigError, DataError
from finr1.core.files import read_json
from finr1.core.jsonl import read_jsonl
from finr1.core.tracking import read_metrics
from finr1.core.types import Message
from finr1.parts.model.folder import resolve
from finr1.parts.model.tokens import load_tokenizer
from finr1.settings.model import ModelSettings
from finr1.settings.sft import SftSettings
from finr1.training.rows.rows import RowGroup, make_row, pack
from finr1.training.sft.chats import encode, read_chats
from finr1.training.sft.run import _rows
from tests.helpers import runner, stages
from tests.helpers.byte_tokenizer import tokenizer
from tests.helpers.tiny_model import tiny

TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((runner.REPO / "tests" / "golden" / "chat_templates").glob("*.jinja"))
}
SPECIAL = ["<|im_start|>", "<|im_end|>"]
QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
SMOL = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


def chat(*texts: str, system: str | None = None) -> list[Message]:
    """User and assistant by turns."""
    head = [Message(role="system", content=system)] if system else []
    roles = ("user", "assistant")
    return [*head, *(Message(role=roles[i % 2], content=text) for i, text in enumerate(texts))]


FIRST, SECOND = "<think>\n二加二\n</think>\n<answer>\n4\n</answer>", "8 "
TURNS = chat("2 + 2?", FIRST, "and twice that?", SECOND)


@pytest.mark.parametrize(("template", "system"), [("qwen2_5", QWEN), ("smollm2", SMOL)])
@pytest.mark.parametrize("turns", ["last", "all"])
def test_mask_token_by_token(template: str, system: str, turns: str) -> None:
    """Of each turn its text and its end of turn carry the loss; neither the header before it nor the line's end."""
    first = turns == "all"
    expected = [
        (f"{system}<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n", False),
        (f"{FIRST}<|im_end|>", first),
        ("\n<|im_start|>user\nand twice that?<|im_end|>\n<|im_start|>assistant\n", False),
        ("8 <|im_end|>", True),
    ]
    made = tokenizer(TEMPLATES[template], SPECIAL)
    text = encode(made, TURNS, turns)
    pieces = [(made.encode(piece, add_special_tokens=False), carries) for piece, carries in expected]
    ids = [token for tokens, _ in pieces for token in tokens]
    carry = [carries for tokens, carries in pieces for _ in tokens]
    assert text.prompt + text.rest == ids
    assert [False] * len(text.prompt) + text.mask == carry
    row = make_row([RowGroup(text.prompt, [text.rest], [0], [text.mask])])
    assert (row.predict_N + 1).tolist() == [i for i, carries in enumerate(carry) if carries]
    assert row.target_N.tolist() == [token for token, carries in zip(ids, carry, strict=True) if carries]
    assert made.decode(row.target_N) == (f"{FIRST}<|im_end|>8 <|im_end|>" if first else "8 <|im_end|>")


def with_marks(template: str) -> str:
    """The template with transformers' own marks of what an assistant generates."""
    message = r"message(?:\.|\[')(?:content)(?:'\])?"
    pattern = rf"(\+ *'\\?\n?n?' *\+ *)({message} *\+ *'<\|im_end\|>')"
    head = "{%- if message['role'] == 'assistant' %}{% generation %}"
    body = r"{{- \2 }}"
    marked, n = re.subn(
        pattern, rf"+ '\\n' }}}}{head}{body}{{% endgeneration %}}{{%- else %}}{body}{{%- endif %}}{{{{ ''", template
    )
    assert n == 1
    return marked


def tokenizers() -> list[Any]:
    """Bytes under each template, and the embedded model's own tokenizer where it is installed."""
    found = [tokenizer(text, SPECIAL) for text in TEMPLATES.values()]
    try:
        real = load_tokenizer(resolve(ModelSettings()))
    except ConfigError:
        return found
    assert real.chat_template == TEMPLATES["smollm2"]
    return [*found, real]


def test_the_mask_is_that_of_transformers_itself() -> None:
    """Against `{% generation %}` marks and character offsets, on 60 random chats of one to four rounds."""
    rng = random.Random(0)
    words = ["profit", " 3.5%", "\n", "营业收入", "<think>", "</answer>", " a", "$", "  ", "é"]
    say = lambda: "x" + "".join(rng.choices(words, k=rng.randint(0, 12)))  # noqa: E731
    for made in tokenizers():
        marked = with_marks(made.chat_template)
        for _ in range(20):
            messages = chat(*(say() for _ in range(2 * rng.randint(1, 4))), system=rng.choice([None, say()]))
            theirs = made.apply_chat_template(
                messages, chat_template=marked, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
            text = encode(made, messages, "all")
            n = len(text.prompt) + len(text.rest)
            assert theirs["input_ids"][:n] == text.prompt + text.rest
            assert theirs["assistant_masks"][:n] == [False] * len(text.prompt) + text.mask
            assert not any(theirs["assistant_masks"][n:])
            last = encode(made, messages, "last")
            assert all(last.mask) and made.decode(last.rest) == messages[-1]["content"] + "<|im_end|>"


def test_a_template_that_rewrites_earlier_answers_is_refused_for_all_turns() -> None:
    """Qwen3's drops the thinking of answers that are not the last."""
    drops = TEMPLATES["qwen2_5"].replace(
        "message.content + '<|im_end|>'",
        "(message.content if loop.last else message.content.split('</think>')[-1]) + '<|im_end|>'",
    )
    made = tokenizer(drops, SPECIAL)
    with pytest.raises(ConfigError, match=r"sft\.turns=all: the chat template renders an earlier answer .*=last"):
        encode(made, TURNS, "all")
    assert made.decode(encode(made, TURNS, "last").rest) == "8 <|im_end|>"


def encoded() -> list[RowGroup]:
    """Chats of one to three rounds as token numbers of the tiny model."""
    rng, groups = random.Random(3), []
    for number, rounds in enumerate((1, 3, 2, 2)):
        prompt, rest, mask = [rng.randrange(50) for _ in range(rng.randint(1, 9))], [], []
        for i in range(2 * rounds - 1):
            length = rng.randint(1, 8)
            rest += [rng.randrange(50) for _ in range(length)]
            mask += [i % 2 == 0] * length
        groups.append(RowGroup(prompt, [rest], [number], () if all(mask) else [mask]))
    return groups


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_packed_chats_have_loss_and_gradients_of_transformers_own(kind: str) -> None:
    """All in one row, and in rows of 20 tokens, against labels of -100 on each chat alone."""
    from finr1.training.rows.logprobs import completion_stats

    plain = tiny(kind, "eager")
    total: Tensor = torch.tensor(0.0)
    for group in encoded():
        ids = [*group.prompt, *group.completions[0]]
        mask = group.masks[0] if group.masks else [True] * len(group.completions[0])
        carry = [t if carries else -100 for t, carries in zip(group.completions[0], mask, strict=True)]
        labels = [-100] * len(group.prompt) + carry
        loss = plain(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]), use_cache=False).loss
        total = total + loss * sum(mask)
    total.backward()
    for budget in (1000, 20):
        ours = tiny(kind)
        rows = pack(encoded(), budget)
        assert (len(rows) == 1) == (budget == 1000)
        found = sum(-completion_stats(ours, make_row(row)).logprobs_N.sum() for row in rows)
        assert isinstance(found, Tensor)
        found.backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(found, total, rtol=1e-5, atol=0)
        for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
            scale = theirs.grad.abs().max().clamp_min(1e-3)
            assert (mine.grad - theirs.grad).abs().max() / scale < 1e-5, name


def test_masks_go_with_their_completions_where_a_group_is_split() -> None:
    group = RowGroup([1, 2], [[3, 4, 5], [6, 7], [8]], [0, 1, 2], [[True, False, True], [False, True], [True]])
    assert group.n_targets == 4
    rows = pack([group], 5)
    assert [g.masks for row in rows for g in row] == [[[True, False, True]], [[False, True], [True]]]
    targets = {n: [] for n in range(3)}
    for row in map(make_row, rows):
        for number, target in zip(row.number_N.tolist(), row.target_N.tolist(), strict=True):
            targets[number].append(target)
    assert targets == {0: [3, 5], 1: [7], 2: [8]}
    with pytest.raises(ValueError, match="shorter"):
        make_row([RowGroup([1], [[2, 3]], [0], [[True]])])


ROW = {"messages": TURNS}
FAULTS = [
    ("{oops", "broken JSON"),
    ('{"text": "x"}', "no key `messages`"),
    ('{"messages": "x"}', "`messages` is not a list"),
    ('{"messages": []}', "no assistant turn"),
    ('{"messages": [3]}', "message 0 is not an object"),
    (json.dumps({"messages": TURNS[:1]}), "no assistant turn"),
    (json.dumps({"messages": TURNS[1:]}), "the first assistant turn comes before any user turn"),
    ('{"messages": [{"role": "human", "content": "x"}]}', "message 0 has the role 'human', not system, user"),
    (json.dumps({"messages": chat("x", " ")}), r"message 1 \(assistant\) has no text"),
    ('{"messages": [{"role": "user", "content": null}]}', r"message 0 \(user\) has no text"),
    (
        json.dumps({"messages": [TURNS[0], {**TURNS[1], "tool_calls": [{"name": "f"}]}]}),
        "message 1 calls tools",
    ),
    (json.dumps({**ROW, "outcome": "bad"}), "its trace was judged bad"),
]


@pytest.mark.parametrize(("line", "why"), FAULTS)
def test_an_unusable_row_is_dropped_with_its_reason(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{line}\n")
    chats, unfit = read_chats(path, None, ())
    assert [c.messages for c in chats] == [TURNS] and chats[0].origin.endswith("chats.jsonl:1")
    assert len(unfit) == 1 and re.search(why, unfit[0].why) and unfit[0].place.endswith("line 2")
    path.write_text(f"{line}\n")
    with pytest.raises(DataError, match=rf"no usable chat; the first, .* line 1: .*{why}.*; a row needs `messages`"):
        read_chats(path, None, ())


def test_files_of_a_folder_system_prompt_and_sources(tmp_path: Path) -> None:
    own = chat("q", "a", "trailing question", system="mine")
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": own, "source": "finqa"}) + "\n")
    rows = [{"messages": TURNS, "source": "tfns"}, {"messages": TURNS, "source": "finqa"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    assert SftSettings(rows=str(tmp_path)).chats == tmp_path
    chats, unfit = read_chats(tmp_path, "system_short.v1", ())
    assert not unfit and [c.origin.rpartition("/")[2] for c in chats] == ["a.jsonl:1", "b.parquet:1", "b.parquet:2"]
    assert chats[0].messages == own[:3]  # its own system message, and nothing after the last answer
    assert chats[1].messages[1:] == TURNS and chats[1].messages[0]["role"] == "system"
    assert len(read_chats(tmp_path, None, ["finqa"])[0]) == 2
    with pytest.raises(DataError, match=r"no row of sft\.sources in it"):
        read_chats(tmp_path, None, ["worked"])


def test_long_chats_are_dropped_whole_and_counted(tmp_path: Path) -> None:
    made = tokenizer(TEMPLATES["qwen2_5"], SPECIAL)
    n = [sum(map(len, encode(made, messages, "all")[:2])) for messages in (TURNS, chat("q", "a" * 400))]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({"messages": chat("q", "a" * 400)}) + "\n")
    for limit, kept in ((max(n), 2), (max(n) - 1, 1), (min(n) - 1, 0)):
        settings = {
            "sft": SftSettings(rows=str(path), turns="all"),
            "model": ModelSettings(max_model_len=limit),
            "prompt": stages.RootConfig(stage="sft").prompt.__class__(system=None),
        }
        with stages.stage_context(tmp_path / str(limit), "sft", **settings) as ctx:
            ctx.inputs = {"chats": path}
            if not kept:
                with pytest.raises(DataError, match=r"all 2 chats exceed model\.max_model_len; raise"):
                    _rows(ctx, made)
                continue
            groups, counts = _rows(ctx, made)
            assert counts == {"dropped_too_long": 2 - kept, "left_out": 0} and len(ctx.notes) == 2 - kept
            assert {g.n_tokens for g in groups} <= set(n) and len(groups) == kept
            written = list(read_jsonl(ctx.folder / "rows.jsonl"))
            assert [row["n_prompt_tokens"] + row["n_completion_tokens"] for row in written] == [
                g.n_tokens for g in groups
            ]
            assert [row["n_loss_tokens"] for row in written] == [g.n_targets for g in groups]


@pytest.mark.slow
def test_the_command_trains_a_small_qwen2_on_a_file_of_chats(tmp_path: Path) -> None:
    """One line where it was not said that they are unchecked; then the loss is of the turns that were asked for."""
    made = tokenizer(TEMPLATES["qwen2_5"], SPECIAL)
    model = tiny("qwen2", "eager", vocab_size=320, max_position_embeddings=512)
    model.save_pretrained(tmp_path / "qwen")
    made.save_pretrained(tmp_path / "qwen")
    lines = [json.dumps({"messages": chat("q" * i, "a" * i, "r", "b")}) for i in range(1, 5)]
    (tmp_path / "chats.jsonl").write_text("\n".join([*lines, '{"messages": []}', json.dumps(ROW)]) + "\n")
    common = ("stage=sft", f"model.path={tmp_path / 'qwen'}", "model.dtype=float32", "model.max_model_len=180")
    rest = ("sft.rows=chats.jsonl", "sft.epochs=1", "prompt.system=null", "trainer.fit.precision=32-true")
    refused = runner.run(tmp_path, *common, *rest)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(
        "error: sft.allow_unchecked=false: the chats in chats.jsonl were not checked against any benchmark; set "
    )
    losses = {}
    for turns in ("last", "all"):
        settings = (f"sft.turns={turns}", f"name={turns}", "sft.allow_unchecked=true")
        done = runner.run(tmp_path, *common, *rest, *settings)
        assert done.returncode == 0, done.stderr[-3000:]
        stage = tmp_path / "runs" / turns / "4_sft"
        counts = read_json(stage / "manifest.json")["counts"]
        assert (counts["rows"], counts["left_out"], counts["dropped_too_long"]) == (4, 1, 1)
        assert len(counts["notes"]) == 2 and len(list(read_jsonl(stage / "left_out.jsonl"))) == 1
        assert sum(row["n_loss_tokens"] for row in read_jsonl(stage / "rows.jsonl")) == (8 if turns == "last" else 22)
        assert (stage / "model" / "model.safetensors").is_file()
        losses[turns] = read_metrics(tmp_path / "runs" / turns, "sft")[0][1]["loss"]
    assert losses["last"] != losses["all"]
    again = runner.run(tmp_path, *common, *rest, *settings)
    assert "done before" in again.stderr
    (tmp_path / "chats.jsonl").write_text("\n".join(lines[:2]) + "\n")
    changed = runner.run(tmp_path, *common, *rest, *settings)
    assert "runs again, changed: input chats" in changed.stderr
