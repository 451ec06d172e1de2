"""Questions whose answer is not a number: a choice, yes or no, a label."""

from finr1.parts.source.worked.template import Draw, Params, Template, Text

CHOICE, YES_NO, LABEL = "choice", "yes or no", "label"


def _margins(draw: Draw) -> Params:
    a, b = draw.amount(), draw.amount()
    first, second = draw.share(), draw.share()
    second += (first == second) * 5
    return {"ra": a, "pa": round(a * first / 100, 4), "rb": b, "pb": round(b * second / 100, 4)}


def _ratio(draw: Draw) -> Params:
    below, ratio = draw.amount(), draw.pick(1, 1.5, 2, 2.5, 3, 4)
    limit = draw.pick(
        *[x for x in (1, 1.5, 2, 2.5, 3) if (x < ratio) == (draw.rng.random() < 0.5) and x != ratio] or (5,)
    )
    return {"assets": round(below * ratio, 4), "debts": below, "limit": limit}


def _budget(draw: Draw) -> Params:
    a, b = draw.amount(), draw.amount()
    return {"a": a, "b": b, "limit": round((a + b) * draw.pick(0.5, 0.8, 0.9, 1.2, 1.25, 1.5), 4)}


def _trend(draw: Draw) -> Params:
    old = draw.amount()
    return {"old": old, "new": draw.pick(old, draw.amount(), draw.amount(), draw.amount())}


def _value(draw: Draw) -> Params:
    eps, ratio = draw.small(), draw.count() * 2
    return {"eps": eps, "price": eps * ratio, "usual": ratio + draw.pick(-2, -1, 1, 2, 4)}


TEMPLATES = (
    Template(
        "choose_coupon", CHOICE, lambda d: {"p": d.amount(), "r": d.rate()}, "multiply({p}, {r}%)", "choice",
        Text(
            "face value {p}, coupon rate {r}%", ("yearly coupon",),
            "A bond of ${p} face value has a coupon rate of {r}%. Which is the yearly coupon in dollars? Give the "
            "letter.",
            "Face value ${p}, coupon rate {r}%. Choose the yearly coupon in dollars; give the letter.",
        ),
        Text("面值{p}，票面利率{r}%", ("年利息",), "债券面值{p}元，票面利率{r}%。每年利息是多少元？答选项字母。"),
    ),
    Template(
        "choose_assets", CHOICE, lambda d: {"debt": d.amount(), "equity": d.amount()}, "add({debt}, {equity})",
        "choice",
        Text(
            "debt {debt}, equity {equity}", ("assets",),
            "Debt is ${debt} million and equity ${equity} million. Which are the assets in $ million? Give the letter.",
            "{co} has debt of ${debt} million, equity of ${equity} million. Choose its assets in $ million; give the "
            "letter.",
        ),
    ),
    Template(
        "higher_margin", CHOICE, _margins, "divide({pa}, {ra}), divide({pb}, {rb}), greater(#0, #1)", "pair",
        Text(
            "A profit {pa}, sales {ra}; B profit {pb}, sales {rb}", ("margin A", "margin B", "higher margin"),
            "Firm A earns a profit of ${pa} on sales of ${ra}, firm B ${pb} on sales of ${rb}. Whose profit margin is "
            "higher, A or B?",
            "Profit and sales: firm A ${pa} and ${ra}, firm B ${pb} and ${rb}. Which firm has the higher profit "
            "margin, A or B?",
            choices={"A": "firm A", "B": "firm B"},
        ),
    ),
    Template(
        "liquid_enough", YES_NO, _ratio, "divide({assets}, {debts}), greater(#0, {limit})", "yes_no",
        Text(
            "current assets {assets}, current liabilities {debts}", ("current ratio", "above {limit}"),
            "Current assets are ${assets}, current liabilities ${debts}. Is the current ratio above {limit}? Answer "
            "yes or no.",
            "{co} has current assets of ${assets} and current liabilities of ${debts}. Is its current ratio above "
            "{limit}? Answer yes or no.",
        ),
        Text(
            "流动资产{assets}，流动负债{debts}", ("流动比率", "高于{limit}"),
            "流动资产{assets}，流动负债{debts}。流动比率高于{limit}吗？答是或否。",
        ),
    ),
    Template(
        "over_budget", YES_NO, _budget, "add({a}, {b}), greater(#0, {limit})", "yes_no",
        Text(
            "wages {a}, rent {b}, budget {limit}", ("total cost", "above budget"),
            "Wages cost ${a}, rent ${b}. Is the total cost above the budget of ${limit}? Answer yes or no.",
            "The budget is ${limit}. Costs are ${a} for wages and ${b} for rent. Is the total above the budget? Answer "
            "yes or no.",
        ),
    ),
    Template(
        "bond_price_label", LABEL, lambda d: {"y": (y := d.rate()), "c": max(1, y + d.pick(-3, -2, -1, 0, 1, 2, 3))},
        "subtract({c}%, {y}%)", "label",
        Text(
            "coupon rate {c}%, market yield {y}%", ("coupon less yield",),
            "A bond has a coupon rate of {c}%, the market yield is {y}%. Is its price at a discount, par or premium? "
            "Answer with that word.",
            "Coupon rate {c}%, market yield {y}%: does the bond trade at discount, par or premium? Answer with that "
            "word.",
            choices={"discount": "price below face", "par": "price at face", "premium": "price above face"},
        ),
        in_percent=True,
    ),
    Template(
        "trend_label", LABEL, _trend, "subtract({new}, {old})", "label",
        Text(
            "old revenue {old}, new revenue {new}", ("change in revenue",),
            "Revenue of {co} was ${old} million, now it is ${new} million. Label the trend: down, flat or up.",
            "Revenue was ${old} million in {y0} and ${new} million in {y1}. Label the trend: down, flat or up.",
            choices={"down": "revenue falls", "flat": "revenue stays", "up": "revenue rises"},
        ),
    ),
    Template(
        "valuation_label", LABEL, _value, "divide({price}, {eps}), subtract(#0, {usual})", "label",
        Text(
            "price {price}, earnings {eps}, usual ratio {usual}", ("price to earnings ratio", "ratio less usual"),
            "A share costs ${price} and earns ${eps}; the usual price to earnings ratio is {usual}. Label the share: "
            "cheap or dear.",
            "Price ${price}, earnings ${eps}, usual price to earnings ratio {usual}. Is the share cheap or dear?",
            choices={"cheap": "ratio below the usual one", "dear": "ratio above the usual one"},
        ),
    ),
)  # fmt: skip
