"""Time value of money, and bonds."""

from finr1.parts.source.worked.template import Draw, Params, Template, Text

TIME, BONDS = "time value", "bonds"


def _loan(draw: Draw) -> Params:
    return {"p": draw.amount(), "r": draw.rate()}


TEMPLATES = (
    Template(
        "simple_interest", TIME, lambda d: {"p": d.amount(), "r": d.rate(), "n": d.count()},
        "multiply({p}, {r}%), multiply(#0, {n})", "number",
        Text(
            "deposit {p}, rate {r}%, {n} years", ("yearly interest", "total interest"),
            "A deposit of ${p} earns simple interest of {r}% a year. How many dollars of interest in {n} years?",
            "You lend ${p} at {r}% simple interest a year for {n} years. What is the total interest in dollars?",
        ),
        Text("本金{p}，利率{r}%，{n}年", ("年利息", "总利息"), "存款{p}元，单利年利率{r}%，{n}年利息多少元？"),
    ),
    Template(
        "balance_one_year", TIME, _loan, "multiply({p}, {r}%), add({p}, #0)", "number",
        Text(
            "deposit {p}, rate {r}%", ("interest", "balance"),
            "You put ${p} in a bank at {r}% interest. What is the balance after one year, in dollars?",
            "A deposit of ${p} earns {r}% interest a year. Find the balance after one year in dollars.",
        ),
        Text("本金{p}，利率{r}%", ("利息", "本息"), "存入{p}元，年利率{r}%，一年后本息共多少元？"),
    ),
    Template(
        "present_value", TIME, lambda d: {"cash": d.amount(), "f": d.pick(0.5, 0.6, 0.7, 0.8, 0.9)},
        "multiply({cash}, {f})", "number",
        Text(
            "payment {cash}, discount factor {f}", ("present value",),
            "A payment of ${cash} is due later; the discount factor is {f}. What is its present value in dollars?",
            "Find the present value in dollars of ${cash} with a discount factor of {f}.",
        ),
    ),
    Template(
        "perpetuity", TIME, lambda d: {"r": (r := d.rate()), "c": round(d.amount() * r / 100, 4)},
        "divide({c}, {r}%)", "number",
        Text(
            "payment {c}, discount rate {r}%", ("present value",),
            "A perpetuity pays ${c} a year. At a discount rate of {r}%, what is its present value in dollars?",
            "Find the value in dollars of ${c} a year forever at a discount rate of {r}%.",
        ),
    ),
    Template(
        "payback", TIME, lambda d: {"flow": (c := d.amount()), "cost": round(c * d.times(), 4)},
        "divide({cost}, {flow})", "number",
        Text(
            "cost {cost}, cash {flow} a year", ("payback period",),
            "A machine costs ${cost} and brings cash of ${flow} a year. What is its payback period in years?",
            "A project costs ${cost} and returns ${flow} cash a year. How many years is the payback period?",
        ),
    ),
    Template(
        "net_cash", TIME,
        lambda d: {"flow": (c := d.amount()), "n": (n := d.count()), "cost": round(c * n * d.pick(0.25, 0.5, 0.8), 4)},
        "multiply({flow}, {n}), subtract(#0, {cost})", "number",
        Text(
            "cost {cost}, cash {flow}, {n} years", ("total cash", "net cash"),
            "A project costs ${cost} and returns ${flow} cash a year for {n} years. What is the net cash in dollars?",
            "Cost ${cost}, cash inflow ${flow} a year for {n} years: find the net cash of the project in dollars.",
        ),
    ),
    Template(
        "compound_two_years", TIME, lambda d: {"p": d.amount(), "r": d.pick(2, 4, 5, 10, 15, 20)},
        "add(const_1, {r}%), exp(#0, const_2), multiply({p}, #1)", "number",
        Text(
            "deposit {p}, rate {r}%, 2 years", ("growth factor", "two-year factor", "value"),
            "You invest ${p} at {r}% a year, compounded yearly. What is its value after two years, in dollars?",
            "Find the value in dollars of ${p} after two years at {r}% a year, compounded yearly.",
        ),
        Text("本金{p}，利率{r}%，2年", ("年因子", "两年因子", "终值"), "投资{p}元，年复利{r}%，两年后值多少元？"),
        level=2,
    ),
    Template(
        "discount_one_year", TIME,
        lambda d: {"r": (r := d.pick(2, 4, 5, 10, 20, 25)), "cash": round(d.amount() * (1 + r / 100), 4)},
        "add(const_1, {r}%), divide({cash}, #0)", "number",
        Text(
            "payment {cash}, discount rate {r}%", ("discount divisor", "present value"),
            "${cash} is due in one year. At a discount rate of {r}%, what is its present value in dollars?",
        ),
        level=2,
    ),
    Template(
        "coupon", BONDS, _loan, "multiply({p}, {r}%)", "number",
        Text(
            "face value {p}, coupon rate {r}%", ("yearly coupon",),
            "A bond has a face value of ${p} and a coupon rate of {r}%. What is the yearly coupon in dollars?",
            "Find the yearly coupon in dollars of a bond with face value ${p} and coupon rate {r}%.",
        ),
        Text("面值{p}，票面利率{r}%", ("年利息",), "债券面值{p}元，票面利率{r}%，每年利息多少元？"),
    ),
    Template(
        "half_year_coupon", BONDS, _loan, "multiply({p}, {r}%), divide(#0, const_2)", "number",
        Text(
            "face value {p}, coupon rate {r}%", ("yearly coupon", "half coupon"),
            "A bond of ${p} face value pays a {r}% coupon a year in two halves. How many dollars is each half?",
            "Face value ${p}, coupon rate {r}%, paid twice a year: find each coupon payment in dollars.",
        ),
    ),
    Template(
        "current_yield", BONDS, lambda d: {"price": (p := d.amount()), "c": round(p * d.rate() / 100, 4)},
        "divide({c}, {price})", "percent",
        Text(
            "coupon {c}, price {price}", ("current yield",),
            "A bond costs ${price} and pays a coupon of ${c} a year. What is its current yield, in percent?",
            "Find the current yield in percent of a bond with price ${price} and coupon ${c}.",
        ),
    ),
    Template(
        "duration", BONDS, lambda d: {"years": d.small(), "dy": d.pick(0.1, 0.2, 0.3, 0.4, 0.5, 1, 2, 3)},
        "multiply({years}, {dy}%)", "percent",
        Text(
            "duration {years}, yield change {dy}%", ("price fall",),
            "A bond has a duration of {years}. Yields rise by {dy}%. By how many percent does its price fall?",
            "Duration {years}, rise in yield {dy}%: find the fall of the bond price in percent.",
        ),
        in_percent=True,
    ),
    Template(
        "bond_income", BONDS,
        lambda d: {"face": (f := d.amount()), "r": d.rate(), "n": d.count(), "price": round(f * d.pick(0.8, 0.9), 4)},
        "multiply({face}, {r}%), multiply(#0, {n}), subtract({face}, {price}), add(#1, #2)", "number",
        Text(
            "face value {face}, coupon rate {r}%, price {price}, {n} years",
            ("yearly coupon", "total coupons", "price gain", "total gain"),
            "A bond of ${face} face value with a {r}% yearly coupon is bought at ${price} and held {n} years to "
            "maturity. What is the total gain in dollars?",
        ),
        level=2,
    ),
)  # fmt: skip
