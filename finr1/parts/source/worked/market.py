"""Portfolio and risk, shares."""

from finr1.parts.source.worked.template import Draw, Params, Template, Text

GROUP = "portfolio"


def _sharpe(draw: Draw) -> Params:
    rf, sd = draw.pick(1, 2, 3, 4, 5), draw.pick(2, 4, 5, 8, 10, 20)
    return {"rf": rf, "sd": sd, "r": round(rf + sd * draw.pick(0.25, 0.5, 1.5, 2, 3), 4)}


TEMPLATES = (
    Template(
        "holding_return", GROUP, lambda d: {"buy": (b := d.amount()), "sell": round(b * (1 + d.share() / 100), 4)},
        "subtract({sell}, {buy}), divide(#0, {buy})", "percent",
        Text(
            "buy {buy}, sell {sell}", ("gain", "return"),
            "You buy a share at ${buy} and sell it at ${sell}. What is your return, in percent?",
            "A share bought at ${buy} is sold at ${sell}. Find the return in percent.",
        ),
        Text("买入{buy}，卖出{sell}", ("收益", "收益率"), "股票{buy}元买入，{sell}元卖出，收益率是多少（%）？"),
    ),
    Template(
        "equal_weights", GROUP, lambda d: {"a": d.rate(), "b": d.rate()},
        "add({a}%, {b}%), divide(#0, const_2)", "percent",
        Text(
            "returns {a}% and {b}%", ("sum of returns", "portfolio return"),
            "Half of a portfolio returns {a}%, the other half {b}%. What is the portfolio return, in percent?",
            "Two funds of equal weight return {a}% and {b}%. Find the portfolio return in percent.",
        ),
        in_percent=True,
    ),
    Template(
        "capm", GROUP,
        lambda d: {"rf": (rf := d.pick(1, 2, 3, 4, 5)), "rm": rf + d.rate(), "beta": d.pick(0.5, 1.5, 2, 3)},
        "subtract({rm}%, {rf}%), multiply(#0, {beta}), add(#1, {rf}%)", "percent",
        Text(
            "risk-free {rf}%, market {rm}%, beta {beta}", ("premium", "beta premium", "expected return"),
            "Risk-free rate {rf}%, market return {rm}%, beta {beta}. What return does the CAPM expect, in percent?",
            "Find the CAPM return in percent: beta {beta}, market return {rm}%, risk-free rate {rf}%.",
        ),
        in_percent=True,
    ),
    Template(
        "sharpe", GROUP, _sharpe, "subtract({r}%, {rf}%), divide(#0, {sd}%)", "number",
        Text(
            "return {r}%, risk-free {rf}%, volatility {sd}%", ("excess return", "Sharpe ratio"),
            "A fund returns {r}% with volatility {sd}%; the risk-free rate is {rf}%. What is its Sharpe ratio?",
            "Find the Sharpe ratio: return {r}%, risk-free rate {rf}%, volatility {sd}%.",
        ),
        in_percent=True,
    ),
    Template(
        "stop_loss", GROUP, lambda d: {"p": d.amount(), "loss": d.share()},
        "multiply({p}, {loss}%), subtract({p}, #0)", "number",
        Text(
            "position {p}, loss {loss}%", ("loss", "value"),
            "A position worth ${p} loses {loss}%. What is it worth now, in dollars?",
            "Find the value in dollars of a ${p} position after a loss of {loss}%.",
        ),
    ),
    Template(
        "dividend_yield", GROUP, lambda d: {"price": (p := d.amount()), "d": round(p * d.rate() / 100, 4)},
        "divide({d}, {price})", "percent",
        Text(
            "dividend {d}, price {price}", ("dividend yield",),
            "A share costs ${price} and pays a dividend of ${d}. What is the dividend yield, in percent?",
            "Find the dividend yield in percent: share price ${price}, dividend ${d}.",
        ),
        Text("股息{d}，股价{price}", ("股息率",), "股价{price}元，股息{d}元，股息率是多少（%）？"),
    ),
    Template(
        "earnings_per_share", GROUP, lambda d: {"shares": (s := d.small()), "income": round(s * d.times(), 4)},
        "divide({income}, {shares})", "number",
        Text(
            "net income {income}, shares {shares}", ("earnings per share",),
            "{co} earned ${income} million and has {shares} million shares. What are its earnings per share in "
            "dollars?",
            "Net income ${income} million, {shares} million shares: find the earnings per share in dollars.",
        ),
    ),
    Template(
        "price_earnings", GROUP, lambda d: {"eps": (e := d.small()), "price": round(e * d.count() * d.pick(1, 2, 5))},
        "divide({price}, {eps})", "number",
        Text(
            "price {price}, earnings {eps}", ("price to earnings ratio",),
            "A share costs ${price}; earnings per share are ${eps}. What is the price to earnings ratio?",
            "Find the price to earnings ratio: price ${price}, earnings per share ${eps}.",
        ),
        Text("股价{price}，每股收益{eps}", ("市盈率",), "股价{price}元，每股收益{eps}元，市盈率是多少？"),
    ),
    Template(
        "weighted_return", GROUP,
        lambda d: {"w": (w := d.pick(10, 20, 30, 40, 60, 70, 80, 90)), "v": 100 - w, "a": d.rate(), "b": d.rate()},
        "multiply({a}%, {w}%), multiply({b}%, {v}%), add(#0, #1)", "percent",
        Text(
            "stocks {w}% at {a}%, bonds {v}% at {b}%", ("stock part", "bond part", "portfolio return"),
            "A portfolio holds {w}% in stocks returning {a}% and {v}% in bonds returning {b}%. What is its return, in "
            "percent?",
        ),
        Text(
            "股票{w}%，收益{a}%，债券{v}%，收益{b}%", ("股票部分", "债券部分", "组合收益率"),
            "组合中股票占{w}%，收益率{a}%；债券占{v}%，收益率{b}%。组合收益率是多少（%）？",
        ),
        level=2,
        in_percent=True,
    ),
    Template(
        "total_return", GROUP,
        lambda d: {"buy": (b := d.amount()), "sell": round(b * (1 + (s := d.share()) / 100), 4), "div": b * s / 500},
        "subtract({sell}, {buy}), add(#0, {div}), divide(#1, {buy})", "percent",
        Text(
            "buy {buy}, sell {sell}, dividend {div}", ("gain", "gain with dividend", "total return"),
            "A share bought at ${buy} pays a dividend of ${div} and is sold at ${sell}. What is the total return, in "
            "percent?",
        ),
        level=2,
    ),
)  # fmt: skip
