"""Independent answers to the 100 MATH records of the AI-generated half of HexaInst.

`ANSWERS[id] = (compute, expected)`: `compute()` finds the answer without the reference's
reasoning, by search, enumeration or exact arithmetic; `expected` is the text after "Answer: "
in the reference. `render(compute())` has to equal `expected`. The file is long because it is a
table: one entry per record, in the order of the records.
"""

import itertools as it
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction as Fr
from typing import TypeVar

T = TypeVar("T")
Matrix = Sequence[Sequence[int | Fr]]


def render(value: object) -> str:
    """Text of an answer: tuples as "(a, b)", lists as "a, b", everything else by str()."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(render, value)) + ")"
    if isinstance(value, list):
        return ", ".join(map(render, value))
    return str(value)


def only(values: Iterable[T]) -> T:
    """The one distinct value; a ValueError says that the problem has no or several answers."""
    (value,) = set(values)
    return value


def first(values: Iterable[T]) -> T:
    return next(iter(values))


def dec(value: Fr) -> str:
    """Exact decimal text of a fraction whose decimal expansion ends."""
    text = str(Decimal(value.numerator) / Decimal(value.denominator))
    assert Fr(text) == value, f"{value} has no short decimal expansion"
    return text


def clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def whole(value: int | Fr) -> int:
    """The value as an int; a ValueError if it is not a whole number."""
    if value != int(value):
        raise ValueError(f"expected a whole number, got {value}")
    return int(value)


def root(value: int | Fr) -> str:
    r"""LaTeX of the square root of a whole number, as a\sqrt{b} with b square-free."""
    n = whole(value)
    a = max(k for k in range(1, math.isqrt(n) + 1) if n % (k * k) == 0)
    return f"{a if a > 1 else ''}\\sqrt{{{n // (a * a)}}}"


def pick(options: dict[str, int | Fr], right: int | Fr) -> str:
    """The letter of the one option equal to the computed value."""
    return only(letter for letter, value in options.items() if value == right)


def matmul(a: Matrix, b: Matrix) -> list[list[int | Fr]]:
    return [[sum(x * y for x, y in zip(row, col, strict=True)) for col in zip(*b, strict=True)]
            for row in a]  # fmt: skip


def bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """The zero of a function that rises from low to high."""
    for _ in range(200):
        mid = (low + high) / 2
        low, high = (mid, high) if f(mid) < 0 else (low, mid)
    return (low + high) / 2


def is_square(n: int) -> bool:
    return math.isqrt(n) ** 2 == n


def cut_corner() -> str:
    u, v = (-6, 6, 0), (-6, 0, 6)  # two edges of the cut; its area is half their cross product
    cross = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
    return root(Fr(sum(c * c for c in cross), 4))


def curtain_call() -> int:
    return sum(
        0 < p.index("O") < 6 and abs(p.index("B") - p.index("C")) == 1
        for p in it.permutations("OBCwxyz")
    )


def tea_bags() -> Fr:
    draws = list(it.combinations("g" * 5 + "m" * 4 + "r" * 3, 3))
    return Fr(sum(len(set(d)) == 3 for d in draws), len(draws))


def enclosed_area() -> Fr:
    def gap(x: int | Fr) -> Fr:
        return Fr(x + 1 - (x * x - 4 * x + 5))

    a, b = (x for x in range(-50, 51) if gap(x) == 0)
    return Fr(b - a, 6) * (gap(a) + 4 * gap(Fr(a + b, 2)) + gap(b))  # Simpson, exact here


def savings_years() -> int:
    balance = Fr(2400)
    for year in it.count(1):
        balance *= Fr(103, 100)
        if balance > 3000:
            return year
    raise AssertionError


def kayaks() -> str:
    return only(
        p[2]
        for p in it.permutations(("red", "green", "blue", "yellow", "white"))
        if p.index("green") < p.index("red") < p.index("blue")
        and p.index("yellow") == p.index("green") + 2
        and p.index("white") not in (0, 4)
    )


def matrix_power() -> str:
    a = power = [[2, 1], [1, 1]]
    for _ in range(4):
        power = matmul(power, a)
    return str(power)


def rainfall() -> str:
    mm = [112, 94, 71, 48, 33, 21, 12, 15, 39, 78, 103, 118]
    return f"{statistics.mean(mm) - statistics.median(mm):.1f}"


def cosine_line() -> int:
    signs = [math.cos(k / 1000) > k / 20000 for k in range(-21000, 21001)]
    return sum(a != b for a, b in it.pairwise(signs))


def cistern() -> str:
    rate = Fr(1, 360) + Fr(1, 540) - Fr(1, 1080)
    minutes = first(t for t in it.count(1) if t * rate >= 1)
    return f"{minutes // 60} h {minutes % 60} min"


def rational_inequality() -> str:
    step = Fr(1, 8)
    grid = [k * step for k in range(-400, 401)]
    good = [x for x in grid if x != -3 and (2 * x - 1) / (x + 3) <= 1]
    assert good == [x for x in grid if good[0] <= x <= good[-1]], "not one interval"
    return f"({good[0] - step}, {good[-1]}]"


def dice_sum_ten() -> Fr:
    rolls = [r for r in it.product(range(1, 7), repeat=3) if sum(r) == 10]
    return Fr(sum(len(set(r)) < 3 for r in rolls), len(rolls))


def croissant() -> str:
    cents = only(c for c in range(1630) for w in range(544)
                 if 2 * w + 3 * c == 1950 and 3 * w + c == 1630)  # fmt: skip
    return f"${cents / 100:.2f}"


def linear_function() -> int:
    return only(
        a * 10 + b
        for a in range(1, 30)
        for b in range(-50, 51)
        if all(a * (a * x + b) + b == 9 * x - 16 for x in range(3))
    )


def cubes_of_roots() -> Fr:
    m = [[Fr(3), Fr(-3, 2)], [Fr(1), Fr(0)]]  # companion matrix: the roots are its eigenvalues
    cube = matmul(matmul(m, m), m)
    return Fr(cube[0][0] + cube[1][1])


def hut_walk() -> int:
    paths = {"SA": 5, "SB": 3, "BA": 1, "BC": 8, "AC": 4, "AG": 11, "CG": 5}
    paths |= {k[::-1]: d for k, d in paths.items()}
    walks = ("S" + "".join(p) + "G" for n in range(4) for p in it.permutations("ABC", n))
    legs = ([a + b for a, b in it.pairwise(w)] for w in walks)
    return min(sum(paths[x] for x in leg) for leg in legs if all(x in paths for x in leg))


def complex_quotient() -> str:
    cube = complex(2, 1) * complex(2, 1) * complex(2, 1)
    pairs = it.product(range(-50, 51), repeat=2)
    a, b = only(p for p in pairs if complex(*p) * complex(1, -2) == cube)
    return f"{a}{b:+}i"


def small_circle() -> Fr:
    # centres (0, 4), (12, 9) and (x, r); the distance to each outer centre fixes x
    rise = bisect(lambda r: math.sqrt((4 + r) ** 2 - (4 - r) ** 2)
                  + math.sqrt((9 + r) ** 2 - (9 - r) ** 2) - 12, 0, 4)  # fmt: skip
    return Fr(rise).limit_denominator(1000)


def recurrence_product() -> Fr:
    a, product = Fr(5), Fr(1)
    for _ in range(103):
        product, a = product * a, (a - 1) / (a + 1)
    return product


def lock_codes() -> int:
    return sum(
        sorted(map(code.count, set(code))) == [2, 2]
        for code in it.product(range(10), repeat=4)
    )  # fmt: skip


def fastest_branch() -> str:
    loans = {"Ashgrove": (12400, 13640), "Dunmore": (8250, 9240), "Fellside": (15600, 17004),
             "Marlpit": (4800, 5424), "Quay Street": (21000, 23520)}  # fmt: skip
    return max(loans, key=lambda b: Fr(loans[b][1], loans[b][0]))


def beacon() -> str:
    parts = (Fr(9, 10), Fr(8, 10), Fr(8, 10), Fr(95, 100))
    return dec(sum(
        math.prod(p if up else 1 - p for p, up in zip(parts, state, strict=True))
        for state in it.product((True, False), repeat=4)
        if any(state[:3]) and state[3]
    ))  # fmt: skip


def odd_function() -> str:
    options: dict[str, Callable[[float], float]] = {
        "A": lambda x: x**3 + 1,
        "B": lambda x: abs(x) * math.cos(x),
        "C": lambda x: x**2 * math.sin(x),
        "D": lambda x: 2**x + 2**-x,
        "E": lambda x: math.log(1 + x * x),
    }
    points = (0, 0.3, 1, 2.5)
    return only(k for k, f in options.items() if all(math.isclose(f(-x), -f(x)) for x in points))


def mast() -> str:
    def walked(h: float) -> float:
        return h / math.tan(math.radians(30)) - h / math.tan(math.radians(60))

    h = bisect(lambda h: walked(h) - 40, 0, 1000)
    assert math.isclose(h * h, round(h * h))
    return root(round(h * h))


def three_unknowns() -> tuple[int, int, int]:
    return only(
        (x, y, z)
        for x, y, z in it.product(range(-20, 21), repeat=3)
        if x + 2 * y - z == -1 and 2 * x - y + 3 * z == 13 and 3 * x + y - 2 * z == 4
    )


def one_figure_estimate() -> int:
    a, b, c = (Decimal(f"{x:.0e}") for x in (4.87, 312, 0.0519))
    return int(a * b / c)


def cryptarithm() -> int:
    return only(
        10 * a + b
        for a, b, c in it.permutations(range(10), 3)
        if a and b and c and 11 * (a + b) == 101 * c + 10 * a
    )


def mobile_library() -> int:
    books = 1260
    for _ in range(8):
        books += 29 - 37
    return books + 45


def cosine_limit() -> Fr:
    x = 1e-3
    return Fr((1 - math.cos(3 * x)) / (x * math.sin(2 * x))).limit_denominator(50)


def rain_forecast() -> Fr:
    days = [(d % 10 < 3, d // 10) for d in range(100)]  # 30 wet days, each column 0 to 9
    announced = [wet for wet, k in days if k < (8 if wet else 1)]
    return Fr(sum(announced), len(announced))


def theatre_rows() -> int:
    return first(n for n in it.count(1) if sum(18 + 3 * k for k in range(n)) >= 1000)


def invoice() -> str:
    plants = 24 * Decimal("3.50") + 10 * Decimal("12.00")
    taxed = plants * Decimal("0.9") + 6 * Decimal("7.25")
    return f"£{taxed * Decimal('1.2') + 2 * Decimal('18.00'):.2f}"


def singular_values() -> list[int]:
    def det(k: int) -> int:
        (a, b, c), (d, e, f), (g, h, i) = (1, 2, k), (0, k, 3), (1, 1, 2)
        return a * e * i + b * f * g + c * d * h - c * e * g - b * d * i - a * f * h

    roots = [k for k in range(-100, 101) if det(k) == 0]
    assert len(roots) == 2, "the determinant is quadratic in k"
    return roots


def programmes() -> int:
    orders = it.permutations([("O", k) for k in range(5)] + [("S", k) for k in range(4)], 3)
    return sum("SS" not in "".join(kind for kind, _ in order) for order in orders)


def probe_distance() -> str:
    mantissa, exponent = f"{3.0e5 * (4 * 60 + 10) * 60:.1e}".split("e")
    return f"{mantissa} \\times 10^{int(exponent)}"


def real_roots() -> Fr:
    n = 300  # midpoints of an n by n grid on the unit square
    mids = [(k + 0.5) / n for k in range(n)]
    hits = sum(4 * a * a - 4 * b >= 0 for a, b in it.product(mids, mids))
    return Fr(hits, n * n).limit_denominator(10)


def oboist() -> str:
    def fits(h: dict[str, int], p: dict[str, int]) -> bool:
        return (
            h["Henrik"] == h["Ilse"] + 1
            and abs(p["flute"] - p["oboe"]) > 1
            and h["Karim"] == 4 == p["harp"]
            and p["cello"] > h["Jolanta"]
            and p["flute"] != h["Henrik"]
        )

    names, orders = ("Henrik", "Ilse", "Jolanta", "Karim"), list(it.permutations((1, 2, 3, 4)))
    homes = [dict(zip(names, o, strict=True)) for o in orders]
    music = [dict(zip(("cello", "flute", "harp", "oboe"), o, strict=True)) for o in orders]
    return only(n for h in homes for p in music if fits(h, p) for n in names if h[n] == p["oboe"])


def five_numbers() -> int:
    return only(
        v[1]
        for v in it.combinations_with_replacement(range(1, 20), 5)
        if sum(v) == 40 and v[2] == 9 and v[4] - v[0] == 10 and statistics.multimode(v) == [12]
    )


def function_range() -> str:
    values = [Fr(6) / (x * x - 4 * x + 7) for x in (Fr(k, 10) for k in range(-1000, 1001))]
    limit = round(6 / (1e12 - 4e6 + 7), 6)
    assert min(values) > limit, "the lower end is not attained"
    return f"({limit:.0f}, {max(values)}]"


def van_value() -> str:
    value = Fr(32000)
    for _ in range(3):
        value -= value * Fr(15, 100)
    return f"${whole(value):,}"


def square_products() -> int:
    return sum(
        is_square(math.prod(s)) for n in range(1, 11) for s in it.combinations(range(1, 11), n)
    )


def orchard() -> str:
    quarters = first(q for q in it.count() if sum(6 if k < 16 else 8 for k in range(q)) >= 240)
    return dec(Fr(quarters, 4))


def largest_angle() -> int:
    x = Fr(7 * 7 + 13 * 13 - 8 * 8, 2 * 13)  # corners (0, 0), (13, 0) and (x, y)
    y = math.sqrt(49 - x * x)
    to_ends = math.atan2(-y, 13 - x), math.atan2(-y, -x)
    return round(math.degrees(to_ends[0] - to_ends[1]))


def carp_level() -> int:
    def settle(stock: float) -> int:
        for _ in range(500):
            stock = stock * 0.8 + 60
        return round(stock)

    return only(map(settle, (0, 120, 5000)))


def net_income() -> int:
    cents = sum(0 if c < 10_000 else 15 if c < 30_000 else 30 for c in range(46_000))
    return 46_000 - cents // 100


def ferry_landing() -> str:
    first_legs = [(m, 35, "M") for m in (525, 560, 605)] + [(m, 25, "L") for m in (540, 600)]
    last_legs = [(m, 30, "M") for m in (590, 610, 650)] + [(m, 40, "L") for m in (570, 615)]
    return clock(min(
        out + crossing
        for dep, leg, via in first_legs
        for out, crossing, start in last_legs
        if dep >= 530 and start == via and out >= dep + leg + 10
    ))  # fmt: skip


def point_to_line() -> str:
    return root(min(
        (t - 4) ** 2 + (2 * t - 1) ** 2 + (2 * t - 3) ** 2
        for t in (Fr(k, 30) for k in range(-300, 301))
    ))  # fmt: skip


def courier_routes() -> int:
    routes = (set(east) for east in it.combinations(range(9), 5))  # which of 9 moves go east
    return sum(len(east & {0, 1, 2, 3}) != 2 for east in routes)


def inflection_tangent() -> str:
    def f(x: int) -> int:
        return x**3 - 3 * x**2 + 2

    x = only(x for x in range(-50, 51) if f(x + 1) - 2 * f(x) + f(x - 1) == 0)
    m = Fr(8 * (f(x + 1) - f(x - 1)) - (f(x + 2) - f(x - 2)), 12)  # exact for cubics
    return f"y = {m}x {'+' if f(x) >= m * x else '-'} {abs(f(x) - m * x)}"


def sphere_in_cone() -> Fr:
    # centre (0, r) is at distance (48 - 6r) / 10 from the side 8x + 6y = 48
    r = only(r for r in (Fr(k, 12) for k in range(1, 96)) if (48 - 6 * r) / 10 == r)
    return 4 * r**3 / (6 * 6 * 8)


def knights() -> str:
    return only(
        " and ".join(n for n, k in zip(("Piers", "Quill", "Rowan"), (p, q, r), strict=True) if k)
        for p, q, r in it.product((True, False), repeat=3)
        if p == (q == r) and q == (not p) and r == p
    )


def fountain() -> Fr:
    times = (Fr(2 * k + 1, 200) for k in range(500))  # midpoints of hundredths of a second
    return Fr(sum(Fr(16, 10) + 20 * t - 5 * t * t > Fr(166, 10) for t in times), 100)


def series_of_cubes() -> Fr:
    ratios = {Fr(p, q) for q in range(1, 13) for p in range(1 - q, q)}
    r = only(r for r in ratios if (12 * (1 - r)) ** 2 / (1 - r * r) == 48)
    return (12 * (1 - r)) ** 3 / (1 - r**3)


def plot_area() -> int:
    corners = [(0, 0), (40, 5), (52, 30), (28, 48), (-6, 33)]
    sides = list(zip(corners, corners[1:] + corners[:1], strict=True))
    inside = sum(
        all((c - a) * (y - b) > (d - b) * (x - a) for (a, b), (c, d) in sides)
        for x, y in it.product(range(-10, 60), range(-5, 55))
    )
    edge = sum(math.gcd(c - a, d - b) for (a, b), (c, d) in sides)
    return inside + edge // 2 - 1  # Pick's theorem; edge is even here


def log_power() -> list[int]:
    return [x for x in range(1, 500) if math.isclose(x ** math.log(x, 3), x**5 / 729)]


ANSWERS: dict[str, tuple[Callable[[], object], str]] = {
    "MATH-ai-001": (
        lambda: sum(it.accumulate(range(1, 2025), lambda f, k: f * k % 35)) % 35,
        "33",
    ),
    "MATH-ai-002": (
        lambda: only(n for n in range(5000) if n * 6 == 27 * 100) - 27,
        "423",
    ),
    "MATH-ai-003": (cut_corner, r"18\sqrt{3}"),
    "MATH-ai-004": (
        lambda: only(
            x for x in range(2, 999) if math.isclose(math.log2(x - 1) + math.log2(x + 5), 4)
        ),
        "3",
    ),
    "MATH-ai-005": (curtain_call, "960"),
    "MATH-ai-006": (lambda: dec(Fr(9 * 1852, 3600) * 40), "185.2"),
    "MATH-ai-007": (tea_bags, "3/11"),
    "MATH-ai-008": (enclosed_area, "9/2"),
    "MATH-ai-009": (savings_years, "8"),
    "MATH-ai-010": (kayaks, "yellow"),
    "MATH-ai-011": (matrix_power, "[[89, 55], [55, 34]]"),
    "MATH-ai-012": (
        lambda: min(
            options := {"A": 120e3, "B": 1.2e6, "C": 12e6, "D": 120e6},
            key=lambda k: abs(math.log(options[k] / (14 * 24 * 60 * 60))),
        ),
        "B",
    ),
    "MATH-ai-013": (rainfall, "2.5"),
    "MATH-ai-014": (
        lambda: only(
            d for d in range(-500, 501) if d and (3 + 4 * d) ** 2 == (3 + d) * (3 + 13 * d)
        ),
        "6",
    ),
    "MATH-ai-015": (
        lambda: only((7 + 4 + 2) * k for k in range(1, 1000) if 2 * k + 30 == 4 * k),
        "195",
    ),
    "MATH-ai-016": (cosine_line, "13"),
    "MATH-ai-017": (cistern, "4 h 30 min"),
    "MATH-ai-018": (rational_inequality, "(-3, 4]"),
    "MATH-ai-019": (
        lambda: sum(math.factorial(15) % n**3 == 0 for n in range(1, 20_000)),
        "24",
    ),
    "MATH-ai-020": (croissant, "$3.70"),
    "MATH-ai-021": (linear_function, "26"),
    "MATH-ai-022": (lambda: dec(14 * Fr(25_000, 100) ** 2 / 100**2), "87.5"),
    "MATH-ai-023": (
        lambda: sum(all(a > b for a, b in it.pairwise(str(n))) for n in range(10_000, 100_000, 5)),
        "127",
    ),
    "MATH-ai-024": (dice_sum_ten, "1/3"),
    "MATH-ai-025": (
        lambda: f"{dec(100 - 100 * Fr(80, 100) * Fr(135, 100) * Fr(90, 100))}%",
        "2.8%",
    ),
    "MATH-ai-026": (cubes_of_roots, "27/2"),
    "MATH-ai-027": (
        lambda: clock(9 * 60 + 40 + first(t for t in range(45, 999) if 60 * t <= 105 * (t - 45))),
        "11:25",
    ),
    "MATH-ai-028": (hut_walk, "13"),
    "MATH-ai-029": (
        lambda: max(x * (24 - 2 * x) * (9 - 2 * x) for x in (Fr(k, 100) for k in range(450))),
        "200",
    ),
    "MATH-ai-030": (
        lambda: only(Fr(t, 10) for t in range(1000) if statistics.mean([615] * 4 + [t]) == 612),
        "60",
    ),
    "MATH-ai-031": (complex_quotient, "-4+3i"),
    "MATH-ai-032": (
        lambda: first(n for n in it.count(1) if n * (1500 - 30 - 620) - 8500 >= 20_000),
        "34",
    ),
    "MATH-ai-033": (
        lambda: only(n for n in range(101, 200) if all(n % box == box - 1 for box in (6, 8, 9))),
        "143",
    ),
    "MATH-ai-034": (small_circle, "36/25"),
    "MATH-ai-035": (recurrence_product, "-2/3"),
    "MATH-ai-036": (
        lambda: only(c for c in range(-273, 10_000) if Fr(9, 5) * c + 32 == 2 * c),
        "160",
    ),
    "MATH-ai-037": (lock_codes, "270"),
    "MATH-ai-038": (
        lambda: only(
            10 * a + b
            for a, b in it.product(range(1, 10), repeat=2)
            if a + b == 12 and 10 * b + a == 10 * a + b + 36
        ),
        "48",
    ),
    "MATH-ai-039": (
        lambda: pick(
            {"A": 15, "B": Fr(25, 2), "C": 10, "D": Fr(15, 2), "E": 5},
            100 * Fr(140, 100) * Fr(75, 100) - 100,
        ),
        "E",
    ),
    "MATH-ai-040": (
        lambda: min(x + 4 * x / (x - 9) for x in (9 + Fr(k, 20) for k in range(1, 2000))),
        "25",
    ),
    "MATH-ai-041": (fastest_branch, "Marlpit"),
    "MATH-ai-042": (beacon, "0.9462"),
    "MATH-ai-043": (
        lambda: ["Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun", "Mon"][5**2025 % 7] + "day",
        "Monday",
    ),
    "MATH-ai-044": (odd_function, "C"),
    "MATH-ai-045": (
        lambda: pick(
            {"A": 240, "B": 360, "C": 384, "D": 600},
            only(w for w in range(5000) if 14 * (240 + w) == 35 * 240),
        ),
        "B",
    ),
    "MATH-ai-046": (lambda: f"{9 * 9 * Fr(160, 360)}\\pi", r"36\pi"),
    "MATH-ai-047": (mast, r"20\sqrt{3}"),
    "MATH-ai-048": (three_unknowns, "(3, -1, 2)"),
    "MATH-ai-049": (one_figure_estimate, "30000"),
    "MATH-ai-050": (cryptarithm, "29"),
    "MATH-ai-051": (mobile_library, "1241"),
    "MATH-ai-052": (
        lambda: sum(n for n in range(1, 5000) if is_square(n * n + 96)),
        "40",
    ),
    "MATH-ai-053": (cosine_limit, "9/4"),
    "MATH-ai-054": (rain_forecast, "24/31"),
    "MATH-ai-055": (theatre_rows, "21"),
    "MATH-ai-056": (invoice, "£308.52"),
    "MATH-ai-057": (lambda: dec(80 * 35 * (Fr("29.5") - 28) / 1000), "4.2"),
    "MATH-ai-058": (singular_values, "-1, 3"),
    "MATH-ai-059": (programmes, "360"),
    "MATH-ai-060": (
        lambda: first(n for n in it.count(1) if 72 + 10 * math.log10(n) >= 85),
        "20",
    ),
    "MATH-ai-061": (lambda: f"{(400 * 55 + 600 * 30) // 1000}%", "40%"),
    "MATH-ai-062": (
        lambda: sum(abs(3 * n - 10) < abs(n + 8) for n in range(-1000, 1001)),
        "8",
    ),
    "MATH-ai-063": (
        lambda: only(
            f"{a}-{b}\\sqrt{{3}}"
            for a, b in it.product(range(1, 60), repeat=2)
            if math.isclose(a - b * math.sqrt(3), math.sqrt(37 - 20 * math.sqrt(3)))
        ),
        r"5-2\sqrt{3}",
    ),
    "MATH-ai-064": (
        lambda: pick(
            {"A": Fr("14.4"), "B": 16, "C": 18, "D": 24},
            36 / (Fr(18, 12) + Fr(1, 2) + Fr(18, 36)),
        ),
        "A",
    ),
    "MATH-ai-065": (probe_distance, r"4.5 \times 10^9"),
    "MATH-ai-066": (
        lambda: [(x, y) for x, y in it.product(range(1, 200), repeat=2) if x * y == 3 * x + 5 * y],
        "(6, 18), (8, 8), (10, 6), (20, 4)",
    ),
    "MATH-ai-067": (real_roots, "1/3"),
    "MATH-ai-068": (oboist, "Henrik"),
    "MATH-ai-069": (five_numbers, "5"),
    "MATH-ai-070": (function_range, "(0, 2]"),
    "MATH-ai-071": (van_value, "$19,652"),
    "MATH-ai-072": (
        lambda: only(w for w in range(1, 500) if (120 + 2 * w) * (180 + 2 * w) == 35_200),
        "20",
    ),
    "MATH-ai-073": (lambda: 7 - 3 * (4 - (2 - 5) ** 2) / Fr(5), "10"),
    "MATH-ai-074": (square_products, "63"),
    "MATH-ai-075": (orchard, "8.5"),
    "MATH-ai-076": (
        lambda: only(n for n in (391, 437, 451, 463, 473, 493) if all(n % d for d in range(2, n))),
        "463",
    ),
    "MATH-ai-077": (largest_angle, "120"),
    "MATH-ai-078": (carp_level, "300"),
    "MATH-ai-079": (net_income, "38200"),
    "MATH-ai-080": (
        lambda: only(
            f"{a}x {b:+}".replace("+", "+ ")
            for a, b in it.product(range(-50, 51), repeat=2)
            if a * 1 + b == 5 and a * -2 + b == -4
        ),
        "3x + 2",
    ),
    "MATH-ai-081": (
        lambda: f"${60 * Fr(3, 2) - 60 * Fr(sum([10] + [2] * 3 + [0] * 8), 12)}",
        "$10",
    ),
    "MATH-ai-082": (
        lambda: "{} and {}".format(
            *(math.floor(150 ** (1 / 2) + 150 ** (1 / 3)) + k for k in (0, 1))
        ),
        "17 and 18",
    ),
    "MATH-ai-083": (ferry_landing, "10:40"),
    "MATH-ai-084": (point_to_line, r"\sqrt{10}"),
    "MATH-ai-085": (lambda: only(b for b in range(4, 37) if int("213", b) == 108), "7"),
    "MATH-ai-086": (courier_routes, "66"),
    "MATH-ai-087": (
        lambda: pick(
            {"A": 18, "B": 20, "C": Fr("22.5"), "D": 24, "E": 30},
            3000 / (Fr(900, 12) + Fr(900, 18)),
        ),
        "D",
    ),
    "MATH-ai-088": (inflection_tangent, "y = -3x + 3"),
    "MATH-ai-089": (
        lambda: only(n for n in range(1, 9999) if n - Fr(2 * n, 5) - Fr(3 * n, 5) / 3 == 48),
        "120",
    ),
    "MATH-ai-090": (lambda: first(x for x in it.count(1) if 17 * x % 43 == 5), "18"),
    "MATH-ai-091": (
        lambda: Fr(96 + 44 + 40, 96 + 44 + 40 + 84 + 36 + 45),
        "12/23",
    ),
    "MATH-ai-092": (sphere_in_cone, "3/8"),
    "MATH-ai-093": (knights, "Quill"),
    "MATH-ai-094": (lambda: f"{600 * Decimal('0.98') * Decimal('1.05'):.2f}", "617.40"),
    "MATH-ai-095": (fountain, "2"),
    "MATH-ai-096": (series_of_cubes, "1728/7"),
    "MATH-ai-097": (
        lambda: max(km for km in range(5000) if 9000 + 35 * km >= 5500 + 60 * km),
        "140",
    ),
    "MATH-ai-098": (plot_area, "1904"),
    "MATH-ai-099": (log_power, "9, 27"),
    "MATH-ai-100": (
        lambda: only(
            90 - one - 17 - 8 for one in range(91) if one + 2 * 17 + 3 * 8 == 46 + 38 + 29
        ),
        "10",
    ),
}
