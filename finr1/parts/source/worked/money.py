"""Tax, currency, units."""

from finr1.parts.source.worked.template import Draw, Params, Template, Text

TAX, CURRENCY, UNITS = "tax", "currency", "units"


def _tax(draw: Draw) -> Params:
    return {"p": draw.amount(), "r": draw.rate()}


TEMPLATES = (
    Template(
        "income_tax", TAX, lambda d: {"free": (free := d.amount()), "income": free + d.amount(), "r": d.rate()},
        "subtract({income}, {free}), multiply(#0, {r}%)", "number",
        Text(
            "income {income}, tax-free {free}, rate {r}%", ("taxable income", "tax"),
            "Income is ${income}, of which ${free} is tax-free. The rest is taxed at {r}%. What is the tax in dollars?",
            "Find the tax in dollars: income ${income}, allowance ${free}, tax rate {r}%.",
        ),
        Text(
            "收入{income}，免税额{free}，税率{r}%", ("应税收入", "税额"),
            "收入{income}元，免税额{free}元，税率{r}%，应缴税多少元？",
        ),
    ),
    Template(
        "sales_tax", TAX, _tax, "multiply({p}, {r}%), add({p}, #0)", "number",
        Text(
            "net price {p}, tax rate {r}%", ("tax", "price with tax"),
            "A good costs ${p} before a sales tax of {r}%. What is the price with tax, in dollars?",
            "Find the price with tax in dollars: net price ${p}, sales tax {r}%.",
        ),
    ),
    Template(
        "after_tax", TAX, _tax, "multiply({p}, {r}%), subtract({p}, #0)", "number",
        Text(
            "profit {p}, tax rate {r}%", ("tax", "profit after tax"),
            "{co} earns a profit of ${p} million and pays {r}% tax. What is the profit after tax, in $ million?",
            "Profit before tax is ${p} million, the tax rate {r}%. Find the profit after tax in $ million.",
        ),
        Text("利润{p}，税率{r}%", ("税额", "税后利润"), "利润{p}万元，税率{r}%，税后利润多少万元？"),
    ),
    Template(
        "two_brackets", TAX,
        lambda d: {"first": d.amount(), "rest": d.amount(), "low": (low := d.rate()), "high": low + d.pick(5, 10)},
        "multiply({first}, {low}%), multiply({rest}, {high}%), add(#0, #1)", "number",
        Text(
            "first {first} at {low}%, next {rest} at {high}%", ("first tax", "second tax", "total tax"),
            "The first ${first} of income is taxed at {low}%, the next ${rest} at {high}%. What is the total tax in "
            "dollars?",
        ),
        level=2,
    ),
    Template(
        "exchange", CURRENCY, lambda d: {"x": d.amount(), "fx": d.pick(2, 3, 4, 5, 6, 7, 8, 9, 0.5, 0.8, 0.9)},
        "multiply({x}, {fx})", "number",
        Text(
            "dollars {x}, exchange rate {fx}", ("units of currency",),
            "One dollar buys {fx} units of a currency. How many units do you get for ${x}?",
            "The exchange rate is {fx} units for one dollar. Find the units for ${x}.",
        ),
        Text("{x}美元，汇率{fx}", ("人民币",), "1美元兑{fx}元，{x}美元兑多少元？"),
    ),
    Template(
        "exchange_back", CURRENCY,
        lambda d: {"fx": (fx := d.pick(2, 3, 4, 5, 6, 7, 8, 9)), "x": round(d.amount() * fx, 4)},
        "divide({x}, {fx})", "number",
        Text(
            "units {x}, exchange rate {fx}", ("dollars",),
            "One dollar buys {fx} units of a currency. How many dollars do you get for {x} units?",
            "The exchange rate is {fx} units for one dollar. Find the dollars for {x} units.",
        ),
        Text("{x}元，汇率{fx}", ("美元",), "1美元兑{fx}元，{x}元兑多少美元？"),
    ),
    Template(
        "exchange_fee", CURRENCY, lambda d: {"x": d.amount(), "fx": d.pick(*range(2, 10)), "fee": d.pick(1, 2, 5, 10)},
        "multiply({x}, {fx}), multiply(#0, {fee}%), subtract(#0, #1)",
        "number",
        Text(
            "dollars {x}, exchange rate {fx}, fee {fee}%", ("units of currency", "fee", "units after fee"),
            "You change ${x} at {fx} units a dollar; the bank keeps a fee of {fee}%. How many units do you get?",
        ),
        level=2,
    ),
    Template(
        "million_to_billion", UNITS, lambda d: {"x": d.amount() * d.pick(1, 2, 10)}, "divide({x}, const_1000)",
        "number",
        Text(
            "amount {x} million", ("amount in billion dollars",),
            "{co} has sales of ${x} million. How many billion dollars is that?",
            "Express ${x} million of assets of {co} in billion dollars.",
        ),
    ),
    Template(
        "billion_plus_million", UNITS, lambda d: {"b": d.pick(1, 2, 3, 4, 5, 1.2, 1.5, 2.5, 0.5, 0.8), "m": d.amount()},
        "multiply({b}, const_1000), add(#0, {m})", "number",
        Text(
            "debt {b} billion and {m} million", ("billion as million", "total debt"),
            "{co} has debt of ${b} billion and ${m} million. What is the total debt in $ million?",
            "Loans are ${b} billion, bonds ${m} million. Find the total debt in $ million.",
        ),
    ),
    Template(
        "wan_to_yi", UNITS, lambda d: {"x": d.amount() * 100}, "divide({x}, const_10000)", "number",
        None,
        Text("收入{x}万元", ("亿元数",), "{co}收入{x}万元，是多少亿元？"),
    ),
    Template(
        "yi_to_million", UNITS, lambda d: {"x": d.pick(*range(1, 20), 0.2, 0.5, 1.2, 1.5, 2.5, 3.5, 4.5, 25, 30, 40)},
        "multiply({x}, const_100)", "number",
        None,
        Text("资产{x}亿元", ("百万元数",), "{co}资产{x}亿元，是多少百万元？"),
    ),
)  # fmt: skip
