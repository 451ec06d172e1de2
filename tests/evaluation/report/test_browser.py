"""The report in a real browser, at the width of a phone and of a desktop: it fits, asks for nothing, and filters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import browser, judged_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
WIDTHS = (390, 1280)
# what sticks out of the window to the right and is not inside something that scrolls or cuts
STICKS_OUT = """((width) => {
  const cut = (e) => { for (; e && e !== document.body; e = e.parentElement)
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX)) return true; return false; };
  return [...document.body.querySelectorAll("*")]
    .filter((e) => e.getBoundingClientRect().right > width + 1 && !cut(e.parentElement))
    .map((e) => `${e.tagName}.${e.className}: ${e.textContent.slice(0, 40)}`).slice(0, 5);
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a judged run of long names and texts."""
    return judged_run.make(tmp_path_factory.mktemp("run"))[1]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    """A browser of its own profile."""
    with browser.tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def choose(tab: browser.Tab, field: str, value: str) -> None:
    """Put a value into a field of the form as a user would."""
    tab.run(
        f"""(() => {{ const field = document.querySelector(".controls").elements[{json.dumps(field)}];
        field.value = {json.dumps(value)}; field.dispatchEvent(new Event("input", {{bubbles: true}})); }})()"""
    )


def shown(tab: browser.Tab) -> list[dict[str, Any]]:
    """Verdict and words of every card, after asking for all of them."""
    return tab.run(  # type: ignore[no-any-return]
        """(() => { const more = document.getElementById("more"); while (!more.hidden) more.click();
        return [...document.querySelectorAll("#list .sample")].map((card) => ({
          verdict: card.querySelector(".verdict").textContent, words: card.querySelector("summary").textContent}));
        })()"""
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_does_not_scroll_sideways(tab: browser.Tab, page: Path, width: int, tmp_path: Path) -> None:
    tab.open(page, width)
    # every sample and every detail open: the worst that a reader can do
    tab.run('document.querySelectorAll("details").forEach((d) => { d.open = true; })')
    assert tab.run("new Promise((done) => setTimeout(() => done(document.querySelectorAll('.body').length), 300))") > 5
    assert tab.run(f"{STICKS_OUT}({width})") == []
    assert tab.run("innerWidth") == width  # on a phone what is wider makes the window zoom out
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.body.scrollWidth") <= width
    scrolled = tab.run("[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length")
    assert (scrolled > 0) if width == WIDTHS[0] else True, "long tables scroll in their own box"
    tab.screenshot(tmp_path / f"{width}.png")
    assert (tmp_path / f"{width}.png").stat().st_size > 20_000


def test_the_page_asks_for_itself_and_nothing_else_and_no_script_fails(tab: browser.Tab, page: Path) -> None:
    tab.requested.clear()
    tab.errors.clear()
    tab.open(page, WIDTHS[1])
    shown(tab)
    assert tab.requested == [page.resolve().as_uri()] and not tab.errors


def test_the_sample_filter_shows_the_chosen_outcome(tab: browser.Tab, page: Path) -> None:
    tab.open(page, WIDTHS[0])
    data = tab.run("JSON.parse(document.getElementById('data').textContent)")
    samples, questions = data["samples"], data["questions"]
    assert len(shown(tab)) == len(samples)
    offered = tab.run("[...document.querySelector('.controls').elements.outcome.options].map((o) => o.value)")
    assert set(offered) == {"", "right", "wrong", "undecided", "disagreement"}
    for value in ("right", "wrong", "undecided"):
        choose(tab, "outcome", value)
        cards = shown(tab)
        assert {card["verdict"] for card in cards} == {value}
        assert len(cards) == sum(sample["outcome"] == value for sample in samples)
    choose(tab, "outcome", "disagreement")
    cards = shown(tab)
    assert 0 < len(cards) == sum(sample["disagree"] for sample in samples) < len(samples)
    assert all("judges disagree" in card["words"] for card in cards)
    choose(tab, "outcome", "")
    choose(tab, "text", "QUESTION 1")  # in any case, of letters
    wanted = [s for s in samples if "question 1" in f"{questions[s['question']]['text']}\n{s['text']}".lower()]
    assert 0 < len(shown(tab)) == len(wanted) < len(samples)
    choose(tab, "text", "no such words")
    assert shown(tab) == [] and tab.run("document.getElementById('found').textContent") == "0 found"
    choose(tab, "text", "")
    choose(tab, "group", "r1")
    assert len(shown(tab)) == sum(sample["group"] == "r1" for sample in samples)
    choose(tab, "bench", "mixed_1_with_a_long_name")
    choose(tab, "mode", "greedy")
    wanted = [s for s in samples if (s["group"], s["bench"], s["mode"]) == ("r1", "mixed_1_with_a_long_name", "greedy")]
    assert 0 < len(shown(tab)) == len(wanted) < sum(sample["group"] == "r1" for sample in samples)


def test_the_names_of_a_wide_table_stay_in_sight(tab: browser.Tab, page: Path) -> None:
    tab.open(page, WIDTHS[0])
    gone = tab.run(
        """(() => { const boxes = [...document.querySelectorAll(".scroll")];
        const wide = boxes.filter((e) => e.scrollWidth > e.clientWidth + 80);
        wide.forEach((e) => { e.scrollLeft = 80; });
        return [wide.length, wide.filter((e) => [...e.querySelectorAll("tbody > tr > :first-child:not([colspan])")]
          .some((c) => Math.abs(c.getBoundingClientRect().left - e.getBoundingClientRect().left) > 1)).length]; })()"""
    )
    assert gone[0] > 3 and gone[1] == 0


def test_a_card_shows_the_verdict_of_every_judge(tab: browser.Tab, page: Path) -> None:
    tab.open(page, WIDTHS[1])
    choose(tab, "outcome", "disagreement")
    first = tab.run(
        """new Promise((done) => { const card = document.querySelector("#list .sample"); card.open = true;
        const rows = () => [...card.querySelectorAll(".checks tr")].map((r) => [...r.cells].map((c) => c.textContent));
        setTimeout(() => done(rows()), 200); })"""
    )
    names = [cells[0] for cells in first]
    assert names[:2] == ["gold", "answer read"] and {
        "rules (strict)",
        "rules (scale-tolerant)",
        "final verdict (by llm)",
    } <= set(names)
    assert sum(name.startswith(("model, ", "judge, ")) for name in names) == 2, "both repeats"
    assert len({cells[1] for cells in first if cells[0].startswith(("rules", "model"))} - {"undecided"}) == 2
