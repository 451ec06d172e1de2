"""Statement analysis: growth, margins, ratios, averages over a small table with text around it, like FinQA."""

from __future__ import annotations

from finr1.parts.source.worked.template import Draw, Params, Template, Text

GROUP = "statement"


def _grown(draw: Draw) -> Params:
    old = draw.amount()
    return {"old": old, "new": round(old * (1 + draw.share() / 100), 4)}


def _risen(draw: Draw) -> Params:
    old = draw.amount()
    return {"old": old, "new": old + draw.amount()}


def _part(draw: Draw) -> Params:
    whole = draw.amount()
    return {"whole": whole, "part": round(whole * draw.share() / 100, 4)}


def _split(draw: Draw) -> Params:
    whole, share = draw.amount(), draw.share()
    return {"first": round(whole * share / 100, 4), "second": round(whole * (1 - share / 100), 4)}


def _cost(draw: Draw) -> Params:
    whole = draw.amount()
    return {"whole": whole, "cost": round(whole * (1 - draw.share() / 100), 4)}


def _multiple(draw: Draw) -> Params:
    below = draw.amount()
    return {"below": below, "above": round(below * draw.times(), 4)}


def _three(draw: Draw) -> Params:
    return {"a": draw.amount(), "b": draw.amount(), "c": draw.amount()}


def _two(draw: Draw) -> Params:
    return {"a": draw.amount(), "b": draw.amount()}


TEMPLATES = (
    Template(
        "growth_rate", GROUP, _grown, "subtract({new}, {old}), divide(#0, {old})", "percent",
        Text(
            (
                "{co} reported in $ million:\n{table}\nCosts are audited. By how many percent did revenue grow?",
                "From the report of {co} ($ million):\n{table}\nWhat was the growth rate of revenue, in percent?",
            ),
            "old revenue {old}, new revenue {new}",
            ("change", "growth rate"),
            (("item", "{y0}", "{y1}"), ("revenue", "{old}", "{new}"), ("costs", "{x0}", "{x1}")),
        ),
        Text(
            ("{co}收入：{y0}年{old}，{y1}年{new}。收入增长率是多少（%）？",),
            "旧收入{old}，新收入{new}",
            ("增加", "增长率"),
        ),
    ),
    Template(
        "change", GROUP, _risen, "subtract({new}, {old})", "number",
        Text(
            (
                "{co}, $ million:\n{table}\nThe year was calm. What was the change in net income, in $ million?",
                "{co} reported in $ million:\n{table}\nBy how many $ million did net income rise?",
            ),
            "old net income {old}, new net income {new}",
            ("change in net income",),
            (("item", "{y0}", "{y1}"), ("net income", "{old}", "{new}"), ("revenue", "{x0}", "{x1}")),
        ),
    ),
    Template(
        "gross_margin", GROUP, _cost, "subtract({whole}, {cost}), divide(#0, {whole})", "percent",
        Text(
            (
                "{co}, {y0}, $ million:\n{table}\nSales were in cash. What was the gross margin, in percent?",
                "The {y0} statement of {co} in $ million:\n{table}\nFind the gross margin in percent.",
            ),
            "revenue {whole}, cost of sales {cost}",
            ("gross profit", "gross margin"),
            (("item", "amount"), ("revenue", "{whole}"), ("cost of sales", "{cost}"), ("rent", "{x0}")),
        ),
        Text(
            ("{co}收入{whole}，成本{cost}。毛利率是多少（%）？",),
            "收入{whole}，成本{cost}",
            ("毛利", "毛利率"),
        ),
    ),
    Template(
        "net_margin", GROUP, _part, "divide({part}, {whole})", "percent",
        Text(
            (
                "{co}, {y0}, $ million:\n{table}\nTax is paid. What was the net profit margin, in percent?",
                "The {y0} statement of {co} in $ million:\n{table}\nFind the net profit margin in percent.",
            ),
            "revenue {whole}, net profit {part}",
            ("net profit margin",),
            (("item", "amount"), ("revenue", "{whole}"), ("tax", "{x0}"), ("net profit", "{part}")),
        ),
        Text(
            ("{co}收入{whole}，净利润{part}。净利率是多少（%）？",),
            "收入{whole}，净利润{part}",
            ("净利率",),
        ),
    ),
    Template(
        "table_average", GROUP, _two, "table_average(ROW, none)", "number",
        Text(
            (
                "{co}, $ million:\n{table}\nWhat was the average revenue of the two years, in $ million?",
                "{co} reported in $ million:\n{table}\nFind the average revenue in $ million.",
            ),
            "revenue {a} and {b}",
            ("average revenue",),
            (("item", "{y0}", "{y1}"), ("revenue", "{a}", "{b}"), ("costs", "{x0}", "{x1}")),
        ),
    ),
    Template(
        "table_total", GROUP, _three, "table_sum(ROW, none)", "number",
        Text(
            (
                "{co}, $ million:\n{table}\nWhat was the total profit of the three years, in $ million?",
                "{co} reported in $ million:\n{table}\nFind the total profit in $ million.",
            ),
            "profit {a}, {b} and {c}",
            ("total profit",),
            (("item", "{y0}", "{y1}", "{y2}"), ("profit", "{a}", "{b}", "{c}")),
        ),
    ),
    Template(
        "table_range", GROUP, _three, "table_max(ROW, none), table_min(ROW, none), subtract(#0, #1)", "number",
        Text(
            (
                "{co}, $ million:\n{table}\nHow far apart are the highest and the lowest revenue, in $ million?",
                "{co} reported in $ million:\n{table}\nFind the range of revenue in $ million.",
            ),
            "revenue {a}, {b} and {c}",
            ("highest", "lowest", "range of revenue"),
            (("item", "{y0}", "{y1}", "{y2}"), ("revenue", "{a}", "{b}", "{c}")),
        ),
    ),
    Template(
        "segment_share", GROUP, _split, "add({first}, {second}), divide({first}, #0)", "percent",
        Text(
            (
                "{co}, sales in {y0}, $ million:\n{table}\nWhat share of total sales was retail, in percent?",
                "{co} reported sales in $ million:\n{table}\nFind the retail share of total sales in percent.",
            ),
            "retail {first}, online {second}",
            ("total sales", "retail share"),
            (("segment", "sales"), ("retail", "{first}"), ("online", "{second}")),
        ),
    ),
    Template(
        "current_ratio", GROUP, _multiple, "divide({above}, {below})", "number",
        Text(
            (
                "{co}, $ million:\n{table}\nThe auditor agreed. What was the current ratio?",
                "The balance sheet of {co} in $ million:\n{table}\nFind the current ratio.",
            ),
            "current assets {above}, current liabilities {below}",
            ("current ratio",),
            (("item", "{y0}"), ("current assets", "{above}"), ("current liabilities", "{below}"), ("cash", "{x0}")),
        ),
        Text(
            ("{co}流动资产{above}，流动负债{below}。流动比率是多少？",),
            "流动资产{above}，流动负债{below}",
            ("流动比率",),
        ),
    ),
    Template(
        "debt_to_equity", GROUP,
        lambda d: {"equity": (e := d.amount()), "assets": round(e * (1 + d.times()), 4)},
        "subtract({assets}, {equity}), divide(#0, {equity})", "number",
        Text(
            (
                "{co} has assets of ${assets} million and equity of ${equity} million. What is its debt to equity"
                " ratio?",
                "Assets of {co} are ${assets} million, equity ${equity} million. Find debt divided by equity.",
            ),
            "assets {assets}, equity {equity}",
            ("debt", "debt to equity ratio"),
        ),
    ),
    Template(
        "average_growth_gap", GROUP,
        lambda d: {"a": (a := d.amount()), "b": (b := d.amount()), "new": round((a + b) * (1 + d.share() / 100) / 2)},
        "add({a}, {b}), divide(#0, const_2), subtract({new}, #1), divide(#2, #1)", "percent",
        Text(
            (
                "{co} reported in $ million:\n{table}\nBy how many percent is the revenue of {y2} above the"
                " average of the"
                " two years before?",
            ),
            "revenue {a}, {b}, then {new}",
            ("sum", "average", "excess", "share above average"),
            (("item", "{y0}", "{y1}", "{y2}"), ("revenue", "{a}", "{b}", "{new}"), ("costs", "{x0}", "{x1}", "{x2}")),
        ),
        level=2,
    ),
    Template(
        "margin_change", GROUP,
        lambda d: {
            "r0": (r0 := d.amount()), "p0": round(r0 * (s := d.share()) / 100, 4),
            "r1": (r1 := d.amount()), "p1": round(r1 * min(95, s + d.rate()) / 100, 4),
        },
        "divide({p1}, {r1}), divide({p0}, {r0}), subtract(#0, #1)", "percent",
        Text(
            (
                "{co} reported in $ million:\n{table}\nBy how many percentage points did the profit margin rise?",
            ),
            "profit {p0} of revenue {r0}, then {p1} of {r1}",
            ("new margin", "old margin", "change in margin"),
            (("item", "{y0}", "{y1}"), ("revenue", "{r0}", "{r1}"), ("profit", "{p0}", "{p1}")),
        ),
        level=2,
    ),
)  # fmt: skip
