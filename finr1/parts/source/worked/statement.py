"""Statement analysis: growth, margins, ratios, averages over a small table with text around it, like FinQA."""

from finr1.parts.source.worked.template import Draw, Params, Template, Text

GROUP = "statement"


def _split(draw: Draw) -> Params:
    whole, share = draw.amount(), draw.share()
    return {"first": round(whole * share / 100, 4), "second": round(whole * (1 - share / 100), 4)}


def _three(draw: Draw) -> Params:
    return {"a": draw.amount(), "b": draw.amount(), "c": draw.amount()}


TEMPLATES = (
    Template(
        "growth_rate", GROUP, lambda d: {"old": (old := d.amount()), "new": round(old * (1 + d.share() / 100), 4)},
        "subtract({new}, {old}), divide(#0, {old})", "percent",
        Text(
            "old revenue {old}, new revenue {new}", ("change", "growth rate"),
            "{co} reported in $ million:\n{table}\nCosts are audited. By how many percent did revenue grow?",
            "From the report of {co} ($ million):\n{table}\nWhat was the growth rate of revenue, in percent?",
            table=(("item", "{y0}", "{y1}"), ("revenue", "{old}", "{new}"), ("costs", "{x0}", "{x1}")),
        ),
        Text(
            "旧收入{old}，新收入{new}", ("增加", "增长率"),
            "{co}收入：{y0}年{old}，{y1}年{new}。收入增长率是多少（%）？",
        ),
    ),
    Template(
        "change", GROUP, lambda d: {"old": (old := d.amount()), "new": old + d.amount()},
        "subtract({new}, {old})", "number",
        Text(
            "old net income {old}, new net income {new}", ("change in net income",),
            "{co}, $ million:\n{table}\nThe year was calm. What was the change in net income, in $ million?",
            "{co} reported in $ million:\n{table}\nBy how many $ million did net income rise?",
            table=(("item", "{y0}", "{y1}"), ("net income", "{old}", "{new}"), ("revenue", "{x0}", "{x1}")),
        ),
    ),
    Template(
        "gross_margin", GROUP,
        lambda d: {"whole": (whole := d.amount()), "cost": round(whole * (1 - d.share() / 100), 4)},
        "subtract({whole}, {cost}), divide(#0, {whole})", "percent",
        Text(
            "revenue {whole}, cost of sales {cost}", ("gross profit", "gross margin"),
            "{co}, {y0}, $ million:\n{table}\nSales were in cash. What was the gross margin, in percent?",
            "The {y0} statement of {co} in $ million:\n{table}\nFind the gross margin in percent.",
            table=(("item", "amount"), ("revenue", "{whole}"), ("cost of sales", "{cost}"), ("rent", "{x0}")),
        ),
        Text("收入{whole}，成本{cost}", ("毛利", "毛利率"), "{co}收入{whole}，成本{cost}。毛利率是多少（%）？"),
    ),
    Template(
        "net_margin", GROUP, lambda d: {"whole": (whole := d.amount()), "part": round(whole * d.share() / 100, 4)},
        "divide({part}, {whole})", "percent",
        Text(
            "revenue {whole}, net profit {part}", ("net profit margin",),
            "{co}, {y0}, $ million:\n{table}\nTax is paid. What was the net profit margin, in percent?",
            "The {y0} statement of {co} in $ million:\n{table}\nFind the net profit margin in percent.",
            table=(("item", "amount"), ("revenue", "{whole}"), ("tax", "{x0}"), ("net profit", "{part}")),
        ),
        Text("收入{whole}，净利润{part}", ("净利率",), "{co}收入{whole}，净利润{part}。净利率是多少（%）？"),
    ),
    Template(
        "table_average", GROUP, lambda d: {"a": d.amount(), "b": d.amount()}, "table_average(ROW, none)", "number",
        Text(
            "revenue {a} and {b}", ("average revenue",),
            "{co}, $ million:\n{table}\nWhat was the average revenue of the two years, in $ million?",
            "{co} reported in $ million:\n{table}\nFind the average revenue in $ million.",
            table=(("item", "{y0}", "{y1}"), ("revenue", "{a}", "{b}"), ("costs", "{x0}", "{x1}")),
        ),
    ),
    Template(
        "table_total", GROUP, _three, "table_sum(ROW, none)", "number",
        Text(
            "profit {a}, {b} and {c}", ("total profit",),
            "{co}, $ million:\n{table}\nWhat was the total profit of the three years, in $ million?",
            "{co} reported in $ million:\n{table}\nFind the total profit in $ million.",
            table=(("item", "{y0}", "{y1}", "{y2}"), ("profit", "{a}", "{b}", "{c}")),
        ),
    ),
    Template(
        "table_range", GROUP, _three, "table_max(ROW, none), table_min(ROW, none), subtract(#0, #1)", "number",
        Text(
            "revenue {a}, {b} and {c}", ("highest", "lowest", "range of revenue"),
            "{co}, $ million:\n{table}\nHow far apart are the highest and the lowest revenue, in $ million?",
            "{co} reported in $ million:\n{table}\nFind the range of revenue in $ million.",
            table=(("item", "{y0}", "{y1}", "{y2}"), ("revenue", "{a}", "{b}", "{c}")),
        ),
    ),
    Template(
        "segment_share", GROUP, _split, "add({first}, {second}), divide({first}, #0)", "percent",
        Text(
            "retail {first}, online {second}", ("total sales", "retail share"),
            "{co}, sales in {y0}, $ million:\n{table}\nWhat share of total sales was retail, in percent?",
            "{co} reported sales in $ million:\n{table}\nFind the retail share of total sales in percent.",
            table=(("segment", "sales"), ("retail", "{first}"), ("online", "{second}")),
        ),
    ),
    Template(
        "current_ratio", GROUP, lambda d: {"below": (below := d.amount()), "above": round(below * d.times(), 4)},
        "divide({above}, {below})", "number",
        Text(
            "current assets {above}, current liabilities {below}", ("current ratio",),
            "{co}, $ million:\n{table}\nThe auditor agreed. What was the current ratio?",
            "The balance sheet of {co} in $ million:\n{table}\nFind the current ratio.",
            table=(
                ("item", "{y0}"), ("current assets", "{above}"), ("current liabilities", "{below}"), ("cash", "{x0}"),
            ),
        ),
        Text(
            "流动资产{above}，流动负债{below}", ("流动比率",),
            "{co}流动资产{above}，流动负债{below}。流动比率是多少？",
        ),
    ),
    Template(
        "debt_to_equity", GROUP,
        lambda d: {"equity": (e := d.amount()), "assets": round(e * (1 + d.times()), 4)},
        "subtract({assets}, {equity}), divide(#0, {equity})", "number",
        Text(
            "assets {assets}, equity {equity}", ("debt", "debt to equity ratio"),
            "{co} has assets of ${assets} million and equity of ${equity} million. What is its debt to equity ratio?",
            "Assets of {co} are ${assets} million, equity ${equity} million. Find debt divided by equity.",
        ),
    ),
    Template(
        "average_growth_gap", GROUP,
        lambda d: {"a": (a := d.amount()), "b": (b := d.amount()), "new": round((a + b) * (1 + d.share() / 100) / 2)},
        "add({a}, {b}), divide(#0, const_2), subtract({new}, #1), divide(#2, #1)", "percent",
        Text(
            "revenue {a}, {b}, then {new}", ("sum", "average", "excess", "share above average"),
            "{co} reported in $ million:\n{table}\nBy how many percent is the revenue of {y2} above the average of the "
            "two years before?",
            table=(
                ("item", "{y0}", "{y1}", "{y2}"), ("revenue", "{a}", "{b}", "{new}"), ("costs", "{x0}", "{x1}", "{x2}"),
            ),
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
            "profit {p0} of revenue {r0}, then {p1} of {r1}", ("new margin", "old margin", "change in margin"),
            "{co} reported in $ million:\n{table}\nBy how many percentage points did the profit margin rise?",
            table=(("item", "{y0}", "{y1}"), ("revenue", "{r0}", "{r1}"), ("profit", "{p0}", "{p1}")),
        ),
        level=2,
    ),
)  # fmt: skip
