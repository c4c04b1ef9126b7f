"""What the answer to each CODE record has to do, as assertions that run.

Every id of `CODE.jsonl` has a check here: Python source that is executed after the reference, in a
test, or after a model's answer (`behaviour.code`). It finds

- the names that the answer defines, where it is Python;
- `REFERENCE`, the answer as text;
- `run(setup_sql, query) -> rows` (SQLite, in memory) beside SQL references;
- `sh(script, stdin="", files={}) -> stdout` (sh in an empty folder) beside shell references.

Each check holds edge cases and fails for a plausible wrong answer. The file is long because it is
a table: one entry per record, in the order of the records.
"""

from typing import Final

CHECKS: Final[dict[str, str]] = {
    "CODE-ai-001": """
assert high_waters([0.4, 1.9, 1.1, 0.3, 2.2, 2.2, 0.9]) == [1, 4]
assert high_waters([1, 2, 2, 3, 1, 0]) == [3]
assert high_waters([5, 5, 1]) == [] and high_waters([1, 2, 2]) == []
assert high_waters([]) == [] and high_waters([7.0]) == []
""",
    "CODE-ai-002": """
assert late_fee(0) == 0 and late_fee(2) == 0 and late_fee(2, True) == 0
assert late_fee(3) == 45
assert late_fee(40) == 600 and late_fee(41) == 600 and late_fee(900) == 600
assert late_fee(3, junior=True) == 22 and isinstance(late_fee(3, junior=True), int)
assert late_fee(900, junior=True) == 300
""",
    "CODE-ai-003": """
SCHEMA = '''
CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE animal (id INTEGER PRIMARY KEY, owner_id INTEGER, name TEXT, species TEXT);
CREATE TABLE visit (animal_id INTEGER, seen_on TEXT);
INSERT INTO owner VALUES (1, 'Vogt'), (2, 'Adeyemi'), (3, 'Lund'), (4, 'Pereira');
'''
assert run(SCHEMA, REFERENCE) == []
ANIMALS = SCHEMA + '''
INSERT INTO animal VALUES (1, 1, 'Miso', 'cat'), (2, 1, 'Fudge', 'dog'), (3, 2, 'Kiki', 'cat'),
  (4, 3, 'Tuck', 'goat');
'''
assert run(ANIMALS, REFERENCE) == [("Adeyemi",), ("Lund",), ("Vogt",)]
one_of_two = ANIMALS + "INSERT INTO visit VALUES (2, '2024-12-31'), (1, '2022-05-05');"
assert run(one_of_two, REFERENCE) == [("Adeyemi",), ("Lund",)]
other_years = ANIMALS + "INSERT INTO visit VALUES (3, '2023-12-31'), (4, '2025-01-01');"
assert run(other_years, REFERENCE) == [("Adeyemi",), ("Lund",), ("Vogt",)]
""",
    "CODE-ai-004": """
assert round_score([6, 6, 6, 6, 6]) == 50
assert round_score([5, 3, 2, 4, 6]) == 40 and round_score([1, 2, 3, 4, 5]) == 40
assert round_score([2, 5, 2, 5, 2]) == 25
assert round_score([3, 3, 1, 3, 3]) == 13
assert round_score([1, 2, 3, 4, 6]) == 6 and round_score([4, 4, 4, 1, 2]) == 4
""",
    "CODE-ai-005": """
shows = [{"host": h, "length": m} for h, m in
         [("Wren", 30), ("Abel", 45), ("Wren", 15), ("Zita", 50), ("Cosmo", 45)]]
assert top_hosts(shows, 1) == ["Zita"]
assert top_hosts(shows, 4) == ["Zita", "Wren", "Abel", "Cosmo"]
assert top_hosts(shows, 99) == top_hosts(shows, 4) and top_hosts(shows, 0) == []
assert top_hosts([], 3) == []
""",
    "CODE-ai-006": """
import re

def ok(code):
    return re.fullmatch(REFERENCE, code) is not None

assert all(map(ok, ["QM-1987-42b", "TE-2003-9", "AA-1900-9999", "ZZ-2099-1z"]))
assert not any(map(ok, ["QM-1897-42", "TE-2003-09", "TE-2100-1", "TE-2003-12345"]))
assert not any(map(ok, ["Qm-1987-42", "QMX-1987-42", "QM-1987-42bc", "QM-1987-", "QM-1987-42B"]))
assert not ok("") and not ok("QM-1987-0")
""",
    "CODE-ai-007": r"""
poem = "a\nb\n\nc\nd\n   \nfive\nf\ng\nh\ni\nten"
out = number_verses(poem, width=6).split("\n")
assert out[6] == "five  5" and out[11] == "ten   10"
assert [out[i] for i in (0, 2, 5, 10)] == ["a", "", "   ", "i"] and len(out) == 12
assert number_verses("1\n2\n3\n4\nexactly", width=7).endswith("\nexactly  5")
assert number_verses("1\n2\n3\n4\nlong verse", width=3).endswith("\nlong verse  5")
assert number_verses("") == "" and number_verses("v\n" * 5) == "v\n" * 4 + "v" + " " * 39 + "5\n"
""",
    "CODE-ai-008": """
def raises(error, call, *args):
    try:
        call(*args)
    except Exception as caught:
        return type(caught) is error
    return False

dock = Dock(3)
assert dock.free == 3 and len(dock) == 0 and raises(KeyError, dock.take)
for bike in (11, 0, 12):
    dock.park(bike)
assert dock.free == 0 and raises(DockFull, dock.park, 99) and len(dock) == 3
assert dock.take(0) == 0 and raises(KeyError, dock.take, 0)
assert raises(ValueError, dock.park, 11)
assert dock.take() == 11 and dock.take() == 12 and dock.free == 3
assert raises(AttributeError, setattr, dock, "free", 5) and issubclass(DockFull, Exception)
""",
    "CODE-ai-009": """
import itertools

T, F = True, False
assert list(clear_runs([T, T, F, T, F, T, T, T], 2)) == [(0, 2), (5, 3)]
assert list(clear_runs([T], 1)) == [(0, 1)] and list(clear_runs([], 1)) == []
assert list(clear_runs([F, T, T, F], 3)) == []
endless = clear_runs(itertools.cycle([T, T, F]), 2)
assert list(itertools.islice(endless, 3)) == [(0, 2), (3, 2), (6, 2)]
seen = []
source = (seen.append(n) or n < 2 for n in range(100))
assert next(clear_runs(source, 1)) == (0, 2) and seen == [0, 1, 2]
""",
    "CODE-ai-010": """
sample = '''# KERROW AWS v3
06:00  T=-2.4  W=NW/12kt
06:10  T=--    W=NW/14kt

06:20  T=-1.9  W=calm
# mast heater on
06:30  T=0.3   W=S/3kt
'''
rows = parse_station(sample)
assert [r["time"] for r in rows] == ["06:00", "06:10", "06:20", "06:30"]
assert rows[0] == {"time": "06:00", "temp": -2.4, "direction": "NW", "knots": 12}
assert rows[1]["temp"] is None and rows[1]["knots"] == 14
assert rows[2]["direction"] is None and rows[2]["knots"] == 0 and rows[2]["temp"] == -1.9
assert parse_station("") == [] and parse_station("# only a comment") == []
""",
    "CODE-ai-011": """
calls = []

@retry(3, (ConnectionError, TimeoutError))
def fetch(fail_first, error=ConnectionError):
    "Fetch it."
    calls.append(fail_first)
    if len(calls) <= fail_first:
        raise error(len(calls))
    return len(calls)

def outcome(*args, **kwargs):
    calls.clear()
    try:
        return fetch(*args, **kwargs)
    except Exception as caught:
        return type(caught), caught.args, len(calls)

assert outcome(0) == 1 and outcome(2) == 3 and outcome(1, error=TimeoutError) == 2
assert outcome(3) == (ConnectionError, (3,), 3)
assert outcome(1, error=KeyError) == (KeyError, (1,), 1)
assert fetch.__name__ == "fetch" and fetch.__doc__ == "Fetch it."
try:
    retry(0, ValueError)(len)
except ValueError:
    pass
else:
    raise AssertionError("times=0 was accepted")
""",
    "CODE-ai-012": """
import random
import time

def slow(prices, target):
    pairs = ((i, j) for j in range(len(prices)) for i in range(j))
    return next((p for p in pairs if prices[p[0]] + prices[p[1]] == target), None)

assert voucher_pair([300, 150, 300, 150], 450) == (0, 1)
assert voucher_pair([5, 5, 5], 10) == (0, 1) and voucher_pair([5], 10) is None
assert voucher_pair([], 0) is None and voucher_pair([9, 1, 1, 9], 18) == (0, 3)
rng = random.Random(4)
for _ in range(200):
    prices = [rng.randrange(12) for _ in range(rng.randrange(9))]
    assert voucher_pair(prices, 11) == slow(prices, 11)
start = time.process_time()
assert voucher_pair(list(range(8000)), -1) is None
assert time.process_time() - start < 0.5
""",
    "CODE-ai-013": r"""
def top(*entries):
    log = "".join(f"2024-05-02T08:14:09 {c} GET {p} {s} 404\n" for c, p, s in entries)
    return sh(REFERENCE, files={"access.log": log}).splitlines()

assert top(("b", "/404", 200), ("lobby", "/x", 404)) == ["1 lobby"]
assert top() == []
many = [("b", "/", 404)] * 2 + [("a", "/", 404)] * 2 + [("z", "/", 404)] * 10 + [("c", "/", 404)]
assert top(*many) == ["10 z", "2 a", "2 b"]
assert top(("a", "/", 200), ("b", "/404", 500)) == []
""",
    "CODE-ai-014": r"""
suite = [f for name, f in list(globals().items()) if name.startswith("test_")]

def verdict(body):
    exec("def split_bonus(total_cents, shares):\n" + body, globals())
    try:
        for test in suite:
            test()
    except Exception:
        return False
    return True

guard = "    whole = sum(shares)\n    if whole == 0:\n        raise ValueError\n"
parts = "    parts = [total_cents * s // whole for s in shares]\n"
rest = "    for i in range(total_cents - sum(parts)):\n        parts[i] += 1\n"
end = "    return parts\n"
assert len(suite) >= 4
assert verdict(guard + parts + rest + end)
assert not verdict(guard + parts + end)
assert not verdict(guard + parts + rest.replace("parts[i]", "parts[-1 - i]") + end)
assert not verdict("    whole = sum(shares) or 1\n" + parts + rest + end)
assert not verdict(guard + parts + "    parts[0] += total_cents - sum(parts)\n" + end)
""",
    "CODE-ai-015": """
from datetime import date as day

found = meeting_dates(2024)
assert len(found) == 11 and found == sorted(found) and day(2024, 8, 15) not in found
assert found[0] == day(2024, 1, 18) and found[1] == day(2024, 2, 15)
assert found[6] == day(2024, 7, 18) and found[7] == day(2024, 9, 19)
assert meeting_dates(2026)[0] == day(2026, 1, 15)
days = [d for year in range(1999, 2030) for d in meeting_dates(year)]
assert all(d.weekday() == 3 and 15 <= d.day <= 21 for d in days)
assert all(type(d) is day for d in found)
""",
    "CODE-ai-016": """
house = {
    "foundation": (6, []), "walls": (10, ["foundation"]), "garden": (4, []),
    "roof": (5, ["walls"]), "wiring": (3, ["walls"]),
    "handover": (1, ["roof", "wiring", "garden"]),
}
assert days_needed(house) == 22
assert days_needed({}) == 0 and days_needed({"paint": (2, [])}) == 2
late = {"last": (1, ["mid"]), "mid": (2, ["first"]), "first": (3, [])}
assert days_needed(late) == 6 and days_needed(late | {"x": (9, [])}) == 9
chain = {str(n): (1, [str(n - 1)] if n else []) for n in range(3000)}
assert days_needed(chain) == 3000
try:
    days_needed({"a": (1, ["b"]), "b": (1, ["a"]), "c": (1, [])})
except ValueError:
    pass
else:
    raise AssertionError("a circle was accepted")
""",
    "CODE-ai-017": """
def before(age, weekday, three_d):
    if weekday == "Tue":
        return 500 if age < 12 else 700
    base = 650 if age < 12 else 800 if age >= 65 else 1050
    return base + (200 if three_d == True else 0)

for age in (0, 11, 12, 40, 64, 65, 99):
    for weekday in ("Mon", "Tue", "Sun"):
        for three_d in (True, False, 1, "yes", None):
            assert ticket(age, weekday, three_d) == before(age, weekday, three_d)
assert ticket(70, "Tue", True) == 700
assert ticket(11, "Sat", True) == 850
assert REFERENCE.count(" if ") < 6
""",
    "CODE-ai-018": """
assert longest_run("GATTACA") == ("T", 2)
assert longest_run("AACCGGTTA") == ("T", 2) and longest_run("TTAA") == ("T", 2)
assert longest_run("") == ("", 0) and longest_run("C") == ("C", 1)
assert longest_run("CACACAAAC") == ("A", 3)
assert longest_run.__doc__ and REFERENCE.count("#") >= 2
""",
    "CODE-ai-019": """
from typing import get_args, get_origin, get_type_hints

tempo, match = get_type_hints(by_tempo), get_type_hints(first_match)
assert set(tempo) == {"tracks", "slow_below", "return"} and tempo["slow_below"] is float
assert set(match) == {"tracks", "wanted", "default", "return"}
assert tempo["return"] == dict[str, list[str]] and match["return"] == str | None == match["default"]
assert get_args(tempo["tracks"]) == (tuple[str, float],)
assert get_origin(tempo["tracks"]).__name__ == "Iterable"
assert get_args(match["wanted"]) == ([float], bool)
assert by_tempo([("Loch", 61.5), ("Reel", 90.0)]) == {"slow": ["Loch"], "brisk": ["Reel"]}
assert first_match([("Loch", 61.5)], lambda t: t > 99) is None
""",
    "CODE-ai-020": """
import contextlib
import io

def fails(*argv):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            build_parser().parse_args(argv)
        except SystemExit as stop:
            return stop.code == 2 and "contact-sheet: error" in err.getvalue()
    return False

args = build_parser().parse_args(["a.png", "b.png", "-o", "sheet.pdf"])
assert args.images == ["a.png", "b.png"] and args.out == "sheet.pdf"
assert (args.columns, args.gap, args.grey) == (4, 2.5, False)
args = build_parser().parse_args(["--grey", "--gap", "0", "-c", "1", "--out", "x", "a.png"])
assert (args.columns, args.gap, args.grey) == (1, 0.0, True)
assert fails("a.png") and fails("-o", "x")
assert fails("a.png", "-o", "x", "-c", "0") and fails("a.png", "-o", "x", "--columns=-3")
assert fails("a.png", "-o", "x", "-c", "two")
""",
    "CODE-ai-021": """
fleet = [("Heron", 12), ("Otter", 8), ("Grebe", 9), ("Teal", 11), ("Coot", 5)]
assert lockings(fleet, 20) == [["Heron", "Otter"], ["Grebe", "Teal"], ["Coot"]]
assert lockings(fleet, 12) == [["Heron"], ["Otter"], ["Grebe"], ["Teal"], ["Coot"]]
assert lockings(fleet, 45) == [["Heron", "Otter", "Grebe", "Teal", "Coot"]]
assert lockings([], 20) == []
try:
    lockings(fleet, 11)
except ValueError as error:
    assert "Heron" in str(error)
else:
    raise AssertionError("a boat longer than the lock was accepted")
""",
    "CODE-ai-022": """
assert atom_counts("H2O") == {"H": 2, "O": 1}
assert atom_counts("Ca(OH)2") == {"Ca": 1, "O": 2, "H": 2}
assert atom_counts("K4(ON(SO3)2)2") == {"K": 4, "O": 14, "N": 2, "S": 4}
assert atom_counts("C12H22O11") == {"C": 12, "H": 22, "O": 11}
assert atom_counts("CH3(CH2)10CO(OH)") == {"C": 12, "H": 24, "O": 2}
assert atom_counts("") == {} and atom_counts("Co") == {"Co": 1} and atom_counts("CO")["C"] == 1
""",
    "CODE-ai-023": """
from fractions import Fraction as F

assert scale_line("1 1/2 cups flour", 3) == "4 1/2 cups flour"
assert scale_line("3/4 tsp salt", F(2, 3)) == "1/2 tsp salt"
assert scale_line("2 eggs", F(1, 2)) == "1 eggs" and scale_line("2 eggs", F(2, 3)) == "1 1/3 eggs"
assert scale_line("1/2 cup 1/2-inch cubes", 2) == "1 cup 1/2-inch cubes"
assert scale_line("salt to taste", 5) == "salt to taste" and scale_line("", 2) == ""
assert scale_line("12 dried apricots", F(5, 4)) == "15 dried apricots"
""",
    "CODE-ai-024": """
assert knight_moves("a1") == ["b3", "c2"]
assert knight_moves("d4") == ["b3", "b5", "c2", "c6", "e2", "e6", "f3", "f5"]
assert knight_moves("h8") == ["f7", "g6"]
squares = [c + r for c in "abcdefgh" for r in "12345678"]
assert sum(len(knight_moves(s)) for s in squares) == 336
assert all(set(knight_moves(s)) <= set(squares) for s in squares)
""",
    "CODE-ai-025": """
SCHEMA = '''
CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, voice TEXT);
CREATE TABLE rehearsal (id INTEGER PRIMARY KEY, held_on TEXT);
CREATE TABLE attendance (singer_id INTEGER, rehearsal_id INTEGER);
'''
assert run(SCHEMA, REFERENCE) == []
DATA = SCHEMA + '''
INSERT INTO singer VALUES (1, 'Tove', 'alto'), (2, 'Amir', 'bass'), (3, 'Bea', 'alto'),
  (4, 'Bea', 'soprano');
INSERT INTO rehearsal VALUES (1, '2024-01-09'), (2, '2024-01-16');
'''
assert run(DATA, REFERENCE) == [("Amir", 0), ("Bea", 0), ("Bea", 0), ("Tove", 0)]
came = DATA + "INSERT INTO attendance VALUES (1, 1), (1, 2), (3, 2), (2, 1);"
assert run(came, REFERENCE) == [("Tove", 2), ("Amir", 1), ("Bea", 1), ("Bea", 0)]
""",
    "CODE-ai-026": """
assert list(clue_numbers(["..#", "#..", "..."]).items()) == [
    ((0, 0), 1), ((0, 1), 2), ((1, 1), 3), ((1, 2), 4), ((2, 0), 5)]
assert clue_numbers(["..", "..", ".."]) == {(0, 0): 1, (0, 1): 2, (1, 0): 3, (2, 0): 4}
assert clue_numbers([]) == {} and clue_numbers(["##", "##"]) == {} and clue_numbers(["."]) == {}
assert clue_numbers(["#.#", "...", "#.#"]) == {(0, 1): 1, (1, 0): 2}
""",
    "CODE-ai-027": """
import re

def found(text):
    return re.findall(REFERENCE, text)

assert found("Simmer 20 min, then rest 1.5 hours.") == [("20", "min"), ("1.5", "hours")]
assert found("3 minced onions, 2 hams, 4 hrsx") == [] and found("") == []
assert found("45Mins; 1 HR; 2h; 10 minutes") == [
    ("45", "Mins"), ("1", "HR"), ("2", "h"), ("10", "minutes")]
assert found("oven B12 min") == [] and found("5  min") == []
assert found("1 minute") == [("1", "minute")]
assert found("0.5 hour or 30 mins.") == [("0.5", "hour"), ("30", "mins")]
""",
    "CODE-ai-028": """
moves = [("2024-03-02", -700), ("2024-03-01", 500), ("2024-03-02", 400), ("2024-03-05", -900)]
assert first_red_day(moves, 0) == "2024-03-05"
assert first_red_day(moves, 700) is None and first_red_day([], -50) is None
assert first_red_day(moves, -600) == "2024-03-01"
assert first_red_day([("2024-01-10", -1), ("2023-12-30", -1)], 0) == "2023-12-30"
assert first_red_day([("2024-01-10", -5)], 5) is None
""",
    "CODE-ai-029": """
def form(*scores):
    return [{"name": n, "score": s} for n, s in zip("ABCDEFG", scores)]

assert teams(form(5, 9, 5, 7), 2) == [["B", "D"], ["A", "C"]]
assert teams(form(1, 2, 3, 4, 5), 2) == [["E", "D"], ["C", "B", "A"]]
assert teams(form(1, 2, 3, 4, 5), 3) == [["E", "D", "C"], ["B", "A"]]
assert teams(form(8), 2) == [["A"]] and teams([], 3) == []
assert teams(form(1, 2), 1) == [["B", "A"]]
""",
    "CODE-ai-030": """
def error(call, *args):
    try:
        call(*args)
    except Exception as caught:
        return type(caught)

m = Machine({"A1": 130, "B2": 60})
assert m.credit == 0 and m.cancel() == [] and error(m.select, "A1") is ValueError
for coin in (10, 50, 200):
    m.insert(coin)
assert m.credit == 260 and error(m.insert, 5) is ValueError and error(m.select, "Z9") is KeyError
assert m.select("A1") == ("A1", [100, 20, 10]) and m.credit == 0
m.insert(20), m.insert(100), m.insert(20)
assert m.cancel() == [20, 100, 20] and m.credit == 0 and m.cancel() == []
m.insert(50)
assert error(m.select, "B2") is ValueError and m.credit == 50
m.insert(10)
assert m.select("B2") == ("B2", [])
m.insert(200), m.insert(200), m.insert(200)
assert m.select("B2") == ("B2", [200, 200, 100, 20, 20])
""",
    "CODE-ai-031": r"""
text = '''site = North bed   ; as on the door
[heating]
enabled = on
target = 18.5
[watering]
hours = 6, 13, 20
enabled = off ; since May
'''
got = read_settings(text)
assert got[""] == {"site": "North bed"}
assert got["heating"] == {"enabled": True, "target": 18.5} and got["heating"]["enabled"] is True
assert got["watering"] == {"hours": [6, 13, 20], "enabled": False}
assert read_settings("; nothing\n\n") == {}
mixed = read_settings("[x]\nv = on, 1.5, -3, tap 2\nlow = -4")["x"]
assert mixed == {"v": [True, 1.5, -3, "tap 2"], "low": -4} and mixed["v"][0] is True
""",
    "CODE-ai-032": """
import tracemalloc

assert pace_summary([210, 190, 260]) == (190, 260, 220)
assert pace_summary(n for n in (210, 190, 260)) == (190, 260, 220)
assert pace_summary(iter([305])) == (305, 305, 305)
tracemalloc.start()
assert pace_summary(n % 97 for n in range(97_000)) == (0, 96, 48)
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
assert peak < 200_000
""",
    "CODE-ai-033": r"""
import itertools

text = ">seq1 moss, north wall\nacgt\n\nTTga\n>empty\n>seq2\nGG CC\n"
want = [("seq1", "ACGTTTGA"), ("empty", ""), ("seq2", "GGCC")]
assert list(read_fasta(text.splitlines(keepends=True))) == want
assert list(read_fasta([])) == [] and list(read_fasta(["acgt\n", "\n"])) == []
assert list(read_fasta(["junk\n", ">a b\n", "tt"])) == [("a", "TT")]
endless = itertools.cycle([">x\n", "ac\n"])
assert list(itertools.islice(read_fasta(endless), 2)) == [("x", "AC"), ("x", "AC")]
""",
    "CODE-ai-034": r"""
files = {"big.bin": "x" * 1001, "edge.bin": "x" * 1000, "sub/deep one.txt": "y" * 5000, "a": "z"}
assert sh(REFERENCE, files=files) == "./big.bin\n./sub/deep one.txt\n"
assert sh(REFERENCE, files={"edge.bin": "x" * 1000}) == ""
assert sh(REFERENCE, files={}) == ""
assert sh(REFERENCE, files={"b": "x" * 2000, "B": "x" * 2000}) == "./B\n./b\n"
""",
    "CODE-ai-035": """
import time

counts = [5, 0, 7, 2, 9]
assert riders(counts, [(0, 4), (1, 1), (2, 3)]) == [23, 0, 9]
assert riders(counts, [(4, 4), (3, 1), (0, 0)]) == [9, 0, 5]
assert riders(counts, []) == [] and riders([], []) == []
start = time.process_time()
assert riders([1] * 20_000, [(0, 19_999)] * 5_000) == [20_000] * 5_000
assert time.process_time() - start < 1.0
""",
    "CODE-ai-036": r"""
import unittest as unit

def verdict(key, relation="key(a) > key(b)"):
    code = f"def newer(a, b):\n    key = {key}\n    return {relation}\n"
    exec(code, globals())
    result = unit.TestResult()
    unit.defaultTestLoader.loadTestsFromTestCase(TestNewer).run(result)
    return result.wasSuccessful()

def parts(version):
    numbers = [int(n) for n in version.partition("-")[0].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers

good = "lambda v: (parts(v), '-' not in v)"
assert verdict(good)
assert unit.defaultTestLoader.loadTestsFromTestCase(TestNewer).countTestCases() > 2
assert not verdict(good, "key(a) >= key(b)") and not verdict(good, "key(a) < key(b)")
assert not verdict("lambda v: parts(v)")
assert not verdict("lambda v: ([str(n) for n in parts(v)], '-' not in v)")
assert not verdict("lambda v: ([int(n) for n in v.partition('-')[0].split('.')], '-' not in v)")
""",
    "CODE-ai-037": """
ridge = [[1, 2, 9], [8, 3, 4], [7, 6, 5]]
assert fewest_steps(ridge, (0, 0), (1, 0), 1) == 7
assert fewest_steps(ridge, (0, 0), (0, 2), 1) == -1
assert fewest_steps(ridge, (0, 0), (0, 0), 1) == 0
assert fewest_steps(ridge, (0, 0), (0, 2), 7) == 2
assert fewest_steps(ridge, (1, 0), (0, 0), 1) == 7
flat = [[0] * 200 for _ in range(200)]
assert fewest_steps(flat, (0, 0), (199, 199), 0) == 398
""",
    "CODE-ai-038": """
from math import isclose

assert isclose(to_metres(10, "feet"), 3.048) and isclose(from_metres(3.048, "feet"), 10)
assert isclose(to_metres(2, "fathoms"), 3.6576) and isclose(from_metres(9.144, "yards"), 10)
assert to_metres(0, "yards") == 0 and isclose(from_metres(to_metres(-7.5, "yards"), "yards"), -7.5)
for convert in (to_metres, from_metres):
    try:
        convert(1, "furlongs")
    except ValueError as error:
        assert "furlongs" in str(error)
    else:
        raise AssertionError("an unknown unit was accepted")
assert REFERENCE.count("def ") == 2
""",
    "CODE-ai-039": r"""
head = "1\n00:00:01,200 --> 00:00:03,950\nWe open at 07:30.\n\n"
tail = "2\n00:59:59,900 --> 01:00:02,000\nBring 12,500 crowns!\n"
late = shift_srt(head + tail, 150)
assert "00:00:01,350 --> 00:00:04,100\nWe open at 07:30.\n" in late
assert late.endswith("2\n01:00:00,050 --> 01:00:02,150\nBring 12,500 crowns!\n")
assert shift_srt(head, -2000).startswith("1\n00:00:00,000 --> 00:00:01,950\n")
assert shift_srt(head + tail, 0) == head + tail and shift_srt("", 99) == ""
quoted = "3\n00:00:05,000 --> 00:00:06,000\nThe tape said 00:00:05,000.\n"
assert "00:00:06,000 --> 00:00:07,000\nThe tape said 00:00:05,000." in shift_srt(quoted, 1000)
""",
    "CODE-ai-040": """
now, calls = [0.0], []

@cached_for(10, clock=lambda: now[0])
def rate(code, **options):
    calls.append(code)
    if code == "bad":
        raise LookupError(code)
    return None if code == "none" else len(calls)

assert rate("nok") == rate("nok") == 1 and rate("sek") == 2
now[0] = 9.99
assert rate("nok") == 1
now[0] = 10.0
assert rate("nok") == 3 and rate.__name__ == "rate"
assert rate("x", a=1, b=2) == rate("x", b=2, a=1) == 4 and rate("x", a=2, b=1) == 5
rate.forget()
assert rate("nok") == 6
assert rate("none") is None and rate("none") is None and calls.count("none") == 1
for _ in range(2):
    try:
        rate("bad")
    except LookupError:
        pass
assert calls.count("bad") == 2
""",
    "CODE-ai-041": """
from datetime import date

assert confirm_by(date(2024, 5, 8), 2, {date(2024, 5, 9)}) == date(2024, 5, 13)
assert confirm_by(date(2024, 5, 10), 1, set()) == date(2024, 5, 13)
assert confirm_by(date(2024, 5, 11), 1, set()) == date(2024, 5, 13)
assert confirm_by(date(2024, 5, 11), 1, {date(2024, 5, 12)}) == date(2024, 5, 13)
assert confirm_by(date(2023, 12, 29), 5, {date(2024, 1, 1)}) == date(2024, 1, 8)
""",
    "CODE-ai-042": """
assert expand("k2 (p yo2)x2 k") == ["k", "k", "p", "yo", "yo", "p", "yo", "yo", "k"]
assert expand("((k)x2 p)x2") == ["k", "k", "p", "k", "k", "p"]
assert expand("") == [] and expand("yo") == ["yo"]
assert expand("k12") == ["k"] * 12 and expand("(p)x10 k") == ["p"] * 10 + ["k"]
assert expand("(k (p (yo)x2)x2)x2") == ["k", "p", "yo", "yo", "p", "yo", "yo"] * 2
""",
    "CODE-ai-043": """
assert to_dmx([0, 100]) == bytes([0, 255])
assert to_dmx([10, 30, 50, 70, 90]) == bytes([26, 77, 128, 179, 230])
assert to_dmx([-20, 180]) == bytes([0, 255]) and to_dmx([1, 99]) == bytes([3, 252])
assert to_dmx([]) == b"" and isinstance(to_dmx([5]), bytes)
""",
    "CODE-ai-044": """
SCHEMA = "CREATE TABLE object (id INTEGER PRIMARY KEY, title TEXT, department TEXT, value INTEGER);"

def top(*rows):
    values = ", ".join(f"('{t}', '{d}', {v})" for t, d, v in rows)
    insert = f"INSERT INTO object (title, department, value) VALUES {values};"
    return run(SCHEMA + insert, REFERENCE)

assert run(SCHEMA, REFERENCE) == []
assert top(("Urn", "Clay", 5), ("Jar", "Clay", 9), ("Cup", "Clay", 7), ("Map", "Paper", 1)) == [
    ("Clay", "Jar", 9), ("Clay", "Cup", 7), ("Paper", "Map", 1)]
assert top(("B", "X", 4), ("A", "X", 4), ("C", "X", 4), ("D", "X", 3)) == [
    ("X", "A", 4), ("X", "B", 4), ("X", "C", 4)]
assert top(("A", "X", 9), ("C", "X", 4), ("B", "X", 4)) == [
    ("X", "A", 9), ("X", "B", 4), ("X", "C", 4)]
assert top(("A", "X", "NULL"), ("B", "X", 2)) == [("X", "B", 2)]
""",
    "CODE-ai-045": """
assert first_round(list("ABCD")) == [("A", "D"), ("B", "C")]
assert first_round(list("ABCDEFGH")) == [("A", "H"), ("D", "E"), ("B", "G"), ("C", "F")]
assert first_round(list("ABCDE")) == [("A", "BYE"), ("D", "E"), ("B", "BYE"), ("C", "BYE")]
assert first_round(["X", "Y"]) == [("X", "Y")]
field = list(range(16))
assert all(a + b == 15 for a, b in first_round(field)) and field == list(range(16))
try:
    first_round(["X"])
except ValueError:
    pass
else:
    raise AssertionError("one player was accepted")
""",
    "CODE-ai-046": """
assert parse(["--font=Mono", "Hello", "--bold", "--size", "12", "--", "--cut"]) == (
    {"font": "Mono", "bold": True, "size": "12"}, ["Hello", "--cut"])
assert parse([]) == ({}, []) and parse(["--"]) == ({}, []) and parse(["--", "--"]) == ({}, ["--"])
assert parse(["--cut", "a=b", "-x"]) == ({"cut": True}, ["a=b", "-x"])
assert parse(["--note=x=y", "--size=", "--bold"]) == ({"note": "x=y", "size": "", "bold": True}, [])
try:
    parse(["text", "--size"])
except ValueError as error:
    assert "size" in str(error)
else:
    raise AssertionError("a missing value was accepted")
""",
    "CODE-ai-047": """
assert free_slots([(60, 120), (100, 150), (200, 900)], 0, 480) == [(0, 60), (150, 200)]
assert free_slots([], 0, 10) == [(0, 10)] and free_slots([(0, 10)], 0, 10) == []
assert free_slots([(10, 90), (20, 30)], 0, 100) == [(0, 10), (90, 100)]
assert free_slots([(-5, 3), (3, 6), (120, 130)], 0, 100) == [(6, 100)]
assert free_slots([(50, 60), (10, 20), (200, 210)], 0, 40) == [(0, 10), (20, 40)]
""",
    "CODE-ai-048": """
pressed = []
buttons = make_buttons(["hall", "porch", "garden"], pressed.append)
assert list(buttons) == ["hall", "porch", "garden"] and pressed == []
buttons["hall"]()
assert pressed == ["hall"]
buttons["porch"](), buttons["garden"](), buttons["hall"]()
assert pressed == ["hall", "porch", "garden", "hall"]
assert make_buttons(["x"], lambda lamp: lamp * 2)["x"]() == "xx" and make_buttons([], print) == {}
assert "#" in REFERENCE
""",
    "CODE-ai-049": """
config = {"host": "alpha", "debug": None}
with override(config, host="beta", port=81) as inner:
    assert inner is config and config == {"host": "beta", "debug": None, "port": 81}
    config["extra"] = 1
assert config == {"host": "alpha", "debug": None, "extra": 1}
try:
    with override(config, host=None, debug="yes", gone=None):
        assert config == {"debug": "yes", "extra": 1}
        config["gone"] = "set inside"
        raise KeyError("stop")
except KeyError:
    pass
else:
    raise AssertionError("the exception was swallowed")
assert config == {"host": "alpha", "debug": None, "extra": 1}
with override(config):
    pass
assert "port" not in config and len(config) == 3
""",
    "CODE-ai-050": """
def error(call, *args):
    try:
        call(*args)
    except Exception as caught:
        return caught

assert Beat(2, 4) == Beat(1, 2) and len({Beat(2, 4), Beat(1, 2), Beat(3, 4)}) == 2
assert Beat(3, 8) < Beat(1, 2) <= Beat(4, 8) and max(Beat(7, 8), Beat(3, 4)) == Beat(7, 8)
assert repr(Beat(6, 8)) == "Beat(6, 8)" and repr(Beat(6, 8) + Beat(2, 8)) == "Beat(1, 1)"
assert repr(Beat(1, 4) + Beat(1, 8)) == "Beat(3, 8)" and Beat(1, 4) != (1, 4)
for bad in ((0, 4), (3, 6), (1, 0), (-1, 4)):
    assert isinstance(error(Beat, *bad), ValueError)
assert isinstance(error(setattr, Beat(3, 4), "number", 5), AttributeError)
assert Beat(3, 4).number == 3 and Beat(3, 4).unit == 4
""",
    "CODE-ai-051": """
import re

def roman(n):
    units = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]
    return "X" * (n // 10) + units[n % 10]

def ok(text):
    return re.fullmatch(REFERENCE, text) is not None

assert all(ok(roman(n)) for n in range(1, 40))
# Not Roman numerals (four X in a row is none), or over XXXIX (39).
assert not any(map(ok, ["", "XL", "XXXX", "IIII", "VV", "IIX", "VIX", "IXI", "VIIII", "L", "IVI"]))
assert not any(map(ok, ["xiv", " X", "X ", "X1", "IL"]))
""",
    "CODE-ai-052": """
class Sold(list):
    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        assert self.reads < 60, "too many reads for a binary search"
        return list.__getitem__(self, index)

assert find_ticket(Sold([3, 5, 9]), 3) == 0
assert [find_ticket(Sold([3, 5, 9, 12]), n) for n in (3, 5, 9, 12)] == [0, 1, 2, 3]
assert [find_ticket(Sold([3, 5, 9]), n) for n in (1, 4, 7, 10)] == [-1] * 4
assert find_ticket(Sold([]), 8) == -1 and find_ticket(Sold([8]), 8) == 0
assert find_ticket(Sold(range(0, 4000, 2)), 3998) == 1999
assert find_ticket(Sold(range(0, 4000, 2)), 777) == -1
""",
    "CODE-ai-053": """
assert justify(["to", "be", "or"], 9) == "to be  or"
assert justify(["a", "b", "c", "d"], 12) == "a  b   c   d"
assert justify(["to", "be"], 5) == "to be" and justify(["word"], 6) == "word  "
assert justify([], 3) == "   " and justify([], 0) == ""
for words, width in ((["to", "be"], 4), (["long"], 3)):
    try:
        justify(words, width)
    except ValueError:
        continue
    raise AssertionError("words that do not fit were accepted")
""",
    "CODE-ai-054": """
SCHEMA = '''
CREATE TABLE orders (id INTEGER PRIMARY KEY, placed_at TEXT, status TEXT);
CREATE TABLE item (order_id INTEGER, drink TEXT, price INTEGER, quantity INTEGER);
'''
assert run(SCHEMA, REFERENCE) == []
ORDERS = SCHEMA + '''
INSERT INTO orders VALUES (1, '2023-03-31 23:59', 'paid'), (2, '2023-03-01 08:00', 'paid'),
  (3, '2023-01-15 09:30', 'paid'), (4, '2023-01-16 09:30', 'cancelled'),
  (5, '2022-12-31 18:00', 'paid'), (6, '2024-01-01 00:00', 'paid'), (7, '2023-12-31 23:00', 'paid');
'''
assert run(ORDERS, REFERENCE) == [("2023-01", 1, 0), ("2023-03", 2, 0), ("2023-12", 1, 0)]
ITEMS = ORDERS + '''
INSERT INTO item VALUES (1, 'latte', 380, 2), (1, 'tea', 250, 1), (2, 'tea', 250, 3),
  (4, 'mocha', 420, 9), (5, 'tea', 250, 1), (6, 'tea', 250, 1), (7, 'mocha', 420, 1);
'''
assert run(ITEMS, REFERENCE) == [("2023-01", 1, 0), ("2023-03", 2, 1760), ("2023-12", 1, 420)]
""",
    "CODE-ai-055": r"""
def totals(*lines):
    table = "\n".join(("person,purpose,amount",) + lines) + "\n"
    return sh(REFERENCE, files={"claims.csv": table}).splitlines()

assert totals("mira,train,42.50", "jonas,hotel,119.00", "mira,coffee,3.90") == [
    "jonas 119.00", "mira 46.40"]
assert totals() == []
assert totals("zoe,refund,-5.25", "abe,taxi,7", "zoe,bus,5.25") == ["abe 7.00", "zoe 0.00"]
assert totals("lee,ferry,extra,10.10") == ["lee 10.10"]
""",
    "CODE-ai-056": """
seen = {2021: ["wren", "coot"], 2019: ["wren", "heron", "wren"], 2020: ["heron"]}
assert lifers(seen) == {2019: ["heron", "wren"], 2020: [], 2021: ["coot"]}
assert list(lifers(seen)) == [2019, 2020, 2021]
assert lifers({}) == {} and lifers({2024: []}) == {2024: []}
assert seen[2019] == ["wren", "heron", "wren"]
""",
    "CODE-ai-057": r"""
import ctypes

def twin(data):
    acc = ctypes.c_uint16(0xA5A5)
    for i, byte in enumerate(data):
        acc.value = (acc.value << 3) | (acc.value >> 13)
        acc.value ^= byte
        acc.value += 257 * i
    return acc.value if acc.value else 0xFFFF

assert stamp(b"") == 0xA5A5 and stamp(b"\x00") == 0x2D2D
assert all(stamp(bytes(range(n % 256)) * 3) == twin(bytes(range(n % 256)) * 3) for n in range(256))
assert stamp(b"orbit 7") == 0x1F39 and stamp(b"The quick brown fox") == 0x6D1B
assert stamp(b"\xfb\x03\x06\x06") == 0xFFFF
""",
    "CODE-ai-058": """
d = Draft(limit=3)
assert d.text == "" and d.undo() is False and d.redo() is False
d.write("one "), d.write("two"), d.erase(1)
assert d.text == "one tw" and d.undo() is True and d.text == "one two"
d.write(""), d.erase(0)
assert d.redo() is True and d.text == "one tw" and d.redo() is False
assert d.undo() and d.undo() and d.text == "one "
d.write("!")
assert d.redo() is False and d.text == "one !"
d.erase(99), d.write("x"), d.write("y")
assert [d.undo(), d.undo(), d.undo(), d.undo()] == [True, True, True, False] and d.text == "one !"
assert [d.redo(), d.redo(), d.redo(), d.redo()] == [True, True, True, False] and d.text == "xy"
for attempt in (lambda: d.erase(-1), lambda: setattr(d, "text", "z")):
    try:
        attempt()
    except (ValueError, AttributeError):
        continue
    raise AssertionError("an invalid call was accepted")
""",
    "CODE-ai-059": r"""
head = "stall;seller;item;price\n"
text = head + '''4;"Oduya; sons";"Lamp, brass";12,50
9;Brandt;Piano;1.250,00
4;"Oduya; sons";Mirror;-
11;Sato;"Vase ""blue"" ";7,05
'''
got = takings(text)
assert got == {"Oduya; sons": 1250, "Brandt": 125000, "Sato": 705}
assert list(got) == ["Oduya; sons", "Brandt", "Sato"] and all(type(v) is int for v in got.values())
assert takings(head) == {} and takings(head + "1;Ito;Rug;-\n") == {"Ito": 0}
assert takings(head + '1;Ito;"Old\nbook";0,29\n2;Ito;Pen;1,10\n') == {"Ito": 139}
""",
    "CODE-ai-060": """
import ast

assert check_parcel({}) == "weight missing" == check_parcel({"weight": None, "size": [999]})
assert check_parcel({"weight": 0}) == "weight must be positive" == check_parcel({"weight": -2})
assert check_parcel({"weight": 31.6, "country": "JP"}) == "too heavy"
assert check_parcel({"weight": 31.5, "country": "JP", "size": [999]}) == "customs form missing"
assert check_parcel({"weight": 2, "customs_form": True, "size": [100, 100, 101]}) == "too bulky"
assert check_parcel({"weight": 2, "customs_form": True, "size": [100, 100, 100]}) == "ok"
assert check_parcel({"weight": 2, "country": "SE"}) == "ok"
nested = [n for n in ast.walk(ast.parse(REFERENCE)) if isinstance(n, ast.If)
          and any(isinstance(child, ast.If) for child in n.body + n.orelse)]
assert nested == []
""",
    "CODE-ai-061": """
import time

assert gates_needed([(600, 660), (630, 700), (640, 645)]) == 3
assert gates_needed([(600, 660), (660, 700), (700, 720)]) == 1
assert gates_needed([]) == 0 and gates_needed([(5, 6)]) == 1
assert gates_needed([(50, 60), (10, 20), (15, 55), (20, 50)]) == 2
start = time.process_time()
assert gates_needed([(n, n + 7) for n in range(20_000)]) == 7
assert time.process_time() - start < 1.0
""",
    "CODE-ai-062": """
def g(x):
    x = (x & 0x55) + ((x >> 1) & 0x55)
    x = (x & 0x33) + ((x >> 2) & 0x33)
    return (x & 0x0F) + (x >> 4)

assert count_ones(0) == 0 and count_ones(255) == 8 and count_ones(0b10110000) == 3
assert all(count_ones(n) == g(n) for n in range(256))
assert len(count_ones.__doc__.split()) > 15 and "0x55" not in REFERENCE
for bad in (-1, 256):
    try:
        count_ones(bad)
    except ValueError:
        continue
    raise AssertionError(f"{bad} was accepted")
""",
    "CODE-ai-063": r"""
import re
import unicodedata

suite = [f for name, f in list(globals().items()) if name.startswith("test_")]
good = '''
def slug(title, limit=40):
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", plain.lower().replace("'", ""))
    result = ""
    for word in words:
        longer = f"{result}-{word}" if result else word[:limit]
        if len(longer) > limit:
            break
        result = longer
    return result
'''

def verdict(old="", new=""):
    assert old in good
    exec(good.replace(old, new) if old else good, globals())
    try:
        for test in suite:
            test()
    except Exception:
        return False
    return True

assert len(suite) >= 6 and verdict()
assert not verdict(".lower()", "") and not verdict("> limit", ">= limit")
assert not verdict('unicodedata.normalize("NFKD", title)', "title")
assert not verdict('.replace("\'", "")', "") and not verdict("word[:limit]", "word")
assert not verdict("a-z0-9", "a-z") and not verdict("[a-z0-9]+", "[^ ]+")
""",
    "CODE-ai-064": """
from datetime import date

assert fiscal_label(date(2024, 3, 31)) == "FY2024 Q4"
assert fiscal_label(date(2024, 4, 1)) == "FY2025 Q1"
assert fiscal_label(date(2023, 12, 31)) == "FY2024 Q3"
assert fiscal_label(date(2024, 1, 1)) == "FY2024 Q4"
assert fiscal_label(date(2024, 7, 1)) == "FY2025 Q2" and fiscal_label(date(2024, 6, 30))[-1] == "1"
""",
    "CODE-ai-065": """
asked = []

def service(pages):
    def fetch(token):
        asked.append(token)
        return pages[token]
    return fetch

book = {None: ([1, 2], "p2"), "p2": ([], 0), 0: ([3], None)}
assert list(harvest(service(book))) == [1, 2, 3] and asked == [None, "p2", 0]
asked.clear()
stream = harvest(service(book))
assert asked == [] and next(stream) == 1 and next(stream) == 2 and asked == [None]
assert list(harvest(service({None: ([], None)}))) == []
loop = harvest(service({None: (["a"], "x"), "x": (["b"], "y"), "y": (["c"], "x")}))
assert [next(loop) for _ in range(3)] == ["a", "b", "c"]
try:
    next(loop)
except RuntimeError:
    pass
else:
    raise AssertionError("a repeated token was followed")
""",
    "CODE-ai-066": """
import time

words = ["tea", "Nets", "eat", "sent", "Ate", "ten", "tea"]
assert anagram_groups(words) == [["tea", "eat", "Ate", "tea"], ["Nets", "sent"], ["ten"]]
assert anagram_groups([]) == [] and anagram_groups(["", "a", ""]) == [["", ""], ["a"]]
assert anagram_groups(["aab", "abb", "ab"]) == [["aab"], ["abb"], ["ab"]]
many = [f"w{n:05}x" for n in range(0, 90_000, 17)]
start = time.process_time()
assert sum(map(len, anagram_groups(many))) == len(many)
assert time.process_time() - start < 0.5
""",
    "CODE-ai-067": """
def suspects(**meters):
    rows = [f"('{meter}', '2024-{month:02}-01', {litres})"
            for meter, counts in meters.items() for month, litres in enumerate(counts, 1)]
    setup = "CREATE TABLE reading (meter TEXT, read_on TEXT, litres INTEGER);"
    if rows:
        setup += f"INSERT INTO reading VALUES {', '.join(reversed(rows))};"
    return run(setup, REFERENCE)

assert suspects() == [] and suspects(m1=[500, 900]) == []
assert suspects(m1=[0, 100, 301, 400]) == [("m1", "2024-03-01", 201)]
assert suspects(m1=[0, 100, 300]) == []
assert suspects(b=[0, 10, 40], a=[7000, 7100, 7200, 7500]) == [
    ("a", "2024-04-01", 300), ("b", "2024-03-01", 30)]
assert suspects(m1=[0, 0, 1]) == [("m1", "2024-03-01", 1)]
""",
    "CODE-ai-068": """
round_1 = {"Ylva": 540, "Bruno": 561, "Cem": 540, "Dot": 522}
assert placings(round_1) == [(1, "Bruno"), (2, "Cem"), (2, "Ylva"), (4, "Dot")]
assert placings({}) == [] and placings({"A": 0}) == [(1, "A")]
assert placings({"B": 7, "A": 7, "C": 7}) == [(1, "A"), (1, "B"), (1, "C")]
assert placings({"A": 1, "B": 2, "C": 2, "D": 3}) == [(1, "D"), (2, "B"), (2, "C"), (4, "A")]
""",
    "CODE-ai-069": """
two, four = Order(2), Order(4)
two.add("soup", 650)
two.add("bread", 200)
assert four.dishes == [] and four.total() == 0 and four.table == 4
assert two.total() == 850 and two.total() == 850 and len(two.dishes) == 2
menu = [("set lunch", 1490)]
guests = Order(7, menu)
guests.add("coffee", 320)
assert guests.total() == 1810 and menu == [("set lunch", 1490)]
assert Order(1, dishes=[("tea", 280)]).total() == 280 and Order(9).dishes == []
""",
    "CODE-ai-070": """
import typing

(T_,) = Tray.__parameters__
assert isinstance(T_, typing.TypeVar) and Tray[int].__args__ == (int,)
hints = {name: typing.get_type_hints(getattr(Tray, name))
         for name in ("__init__", "put", "take", "largest")}
assert typing.get_args(hints["__init__"]["parts"]) == (T_,)
assert hints["put"] == {"part": T_, "return": type(None)}
assert set(typing.get_args(hints["take"]["return"])) == {T_, type(None)}
assert hints["largest"]["return"] == T_ and typing.get_args(hints["largest"]["key"])[0] == [T_]
tray = Tray([3, -8, 5])
tray.put(4)
assert tray.largest(abs) == -8 and tray.take() == 4 and Tray().take() is None
""",
    "CODE-ai-071": r"""
import re

def plain(page):
    return re.sub(REFERENCE, r"\1", page)

assert plain("At [[Harbour]] we met.") == "At Harbour we met."
assert plain("[[Old harbour (1890)|the docks]]") == "the docks"
assert plain("[[A]] and [[B|b]] | [[C]]") == "A and b | C"
assert plain("see [1] and a[0] | b[2]") == "see [1] and a[0] | b[2]" and plain("") == ""
assert plain("[[open [[Pier|quay]]") == "[[open quay"
""",
    "CODE-ai-072": """
def near(line, lat, lon):
    got = decimal_position(line)
    return abs(got[0] - lat) < 1e-9 and abs(got[1] - lon) < 1e-9

assert near("N 48° 12.345 E 011° 02.010", 48.20575, 11.0335)
assert near("S 03° 59.999 W 120° 00.500", -3.999983, -120.008333)
assert near("S 00° 30.000 E 000° 00.000", -0.5, 0) and near("N 90° 00.000 W 180° 00.000", 90, -180)
bad = ["", "N 48° 60.000 E 011° 02.010", "N 90° 00.001 E 011° 02.010", "N 48° 12.345",
       "N 48° 12.345 E 180° 00.600", "E 011° 02.010 N 48° 12.345"]
for line in bad:
    try:
        decimal_position(line)
    except ValueError:
        continue
    raise AssertionError(f"{line!r} was accepted")
""",
    "CODE-ai-073": r"""
rows = [["Stop", "min", "Note"], ["Mill Lane", "4", ""], ["Town Hall", "12", "lift"]]
assert align(rows) == "Stop       min  Note\nMill Lane    4\nTown Hall   12  lift"
assert align([["A", "n"], ["long"], ["x", "7", "more"]]) == "A     n\nlong\nx     7  more"
assert align([["no"], ["5"], ["a7"]]) == "no\n5\na7" and align([]) == ""
assert align([["zone", "km"], ["", "3"], ["11", "40"]]) == "zone  km\n       3\n  11  40"
assert rows[1] == ["Mill Lane", "4", ""]
""",
    "CODE-ai-074": r"""
assert sh(REFERENCE, stdin="Okafor, Ngozi\nLindqvist ,Per Olov\nCher\n") == (
    "Ngozi Okafor\nPer Olov Lindqvist\nCher\n")
assert sh(REFERENCE, stdin="") == ""
assert sh(REFERENCE, stdin="van der Berg,   Anna M.\n") == "Anna M. van der Berg\n"
assert sh(REFERENCE, stdin="Mary Ann\nA,B\n") == "Mary Ann\nB A\n"
""",
    "CODE-ai-075": """
bot, other = Bot(), Bot()

@bot.command("add", "Sum")
def total(*numbers):
    return str(sum(map(int, numbers)))

@bot.command()
def Ping():
    return "pong"

assert bot.reply("SUM 4 5") == "9" == bot.reply("  add 4   5 ") and bot.reply("ping") == "pong"
assert total(1, 2) == "3" and Ping.__name__ == "Ping" and bot.reply("add") == "0"
assert bot.reply("") == bot.reply("total 1") == other.reply("ping") == "Unknown command"
try:
    bot.command("fresh", "ADD")(len)
except ValueError:
    assert bot.reply("fresh x") == "Unknown command" and bot.reply("add 1") == "1"
else:
    raise AssertionError("a taken name was accepted")
""",
    "CODE-ai-076": """
from datetime import datetime, timedelta

t0 = datetime(2024, 5, 1, 23, 59, 30)

def at(seconds):
    return t0 + timedelta(seconds=seconds)

b = Bucket(0.5, 3, t0)
assert [b.allow(t0) for _ in range(4)] == [True, True, True, False]
assert b.allow(at(1)) is False and b.allow(at(2)) is True and b.allow(at(2)) is False
assert b.allow(at(-60)) is False and b.allow(at(2)) is False
assert b.allow(at(1000), 4) is False and b.allow(at(1000), 3) is True
assert b.allow(at(1000.5), 0.25) is True and b.allow(at(1000.5), 0.25) is False
back = Bucket(1, 2, t0)
assert back.allow(at(-60)) and back.allow(at(-120)) and not back.allow(t0)
slow = Bucket(0.001, 1, t0)
assert slow.allow(t0) and not slow.allow(at(999)) and slow.allow(at(86_400))
""",
    "CODE-ai-077": """
assert grow(["##.", "...", "..c"], 1) == ["##.", "#..", "..c"]
wall = ["#.#"]
assert grow(wall, 1) == ["###"] and wall == ["#.#"] and grow(wall, 0) == wall
assert grow(["###", "###", "###"], 1) == ["###", "#.#", "###"]
assert grow(["###", "#c#", "###"], 1) == ["...", ".c.", "..."]
assert grow([], 4) == [] and grow(["..", "#."], 3) == ["..", "#."]
assert grow([".....", ".#.#.", "....."], 1) == ["..#..", ".###.", "..#.."]
assert grow([".....", ".#.#.", "....."], 2) == [".###."] * 3
""",
    "CODE-ai-078": """
SCHEMA = "CREATE TABLE member (id INTEGER PRIMARY KEY, name TEXT, born TEXT);"

def twice(*rows):
    values = ", ".join(f"('{name}', '{born}')" for name, born in rows)
    return run(SCHEMA + f"INSERT INTO member (name, born) VALUES {values};", REFERENCE)

assert run(SCHEMA, REFERENCE) == []
assert twice(("Ida", "1990"), ("Ida", "1991"), ("Bo", "1990")) == []
assert twice(("Ida", "1990"), ("Bo", "1980"), ("Ida", "1990"), ("Bo", "1980"), ("Ida", "1990")) == [
    ("Bo", "1980", 2), ("Ida", "1990", 3)]
assert twice(*[("Al", "2001")] * 2, *[("Al", "1950")] * 2) == [("Al", "1950", 2), ("Al", "2001", 2)]
""",
    "CODE-ai-079": """
assert scribe(13, 24) == 312
assert scribe(0, 9) == 0 and scribe(9, 0) == 0 and scribe(1, 1) == 1
assert all(scribe(a, b) == a * b for a in range(40) for b in range(40))
assert scribe(2**70, 3) == 3 * 2**70 and "*" not in REFERENCE
""",
    "CODE-ai-080": """
assert light(blank_panel(3, 2), 1, 0) == [[".", "."], ["*", "."], [".", "."]]
panel = blank_panel(2, 3)
assert light(panel, 0, 2) is panel and panel[1] == [".", ".", "."]
light(panel, 1, 0)
assert panel == [[".", ".", "*"], ["*", ".", "."]]
assert blank_panel(0, 5) == [] and blank_panel(2, 0) == [[], []]
""",
    "CODE-ai-081": """
import json as codec

bins = [{"aisle": 4}, {"aisle": 9, "tags": []}]
stock = {"sku": "K-71", "bins": bins, "dims": {"cm": [30, 12.5]}}
assert flatten(codec.dumps(stock)) == {
    "sku": "K-71", "bins[0].aisle": 4, "bins[1].aisle": 9, "bins[1].tags": [],
    "dims.cm[0]": 30, "dims.cm[1]": 12.5}
assert flatten("{}") == {}
assert flatten('{"a": {}, "b": null, "c": ""}') == {"a": {}, "b": None, "c": ""}
assert flatten('{"a": {"b": {"c": [[1, 2], [3]]}}}') == {
    "a.b.c[0][0]": 1, "a.b.c[0][1]": 2, "a.b.c[1][0]": 3}
assert list(flatten('{"z": 1, "a": {"q": false, "b": 0}}').items()) == [
    ("z", 1), ("a.q", False), ("a.b", 0)]
""",
    "CODE-ai-082": """
assert bill(100, 1) == 8950 and bill(150, 1) == 12950
assert bill(151, 1) == 13060 and bill(500, 1) == 51450 and bill(510, 1) == 52900
assert bill(300, 2) == 25900 and bill(1001, 2) == 103045
assert bill(0, 1) == 2000 and bill(13, 1) == 2000 and bill(14, 1) == 2070 and bill(0, 3) == 6000
assert bill(510, 1, solar=True) == 47705 and bill(501, 1, solar=True) == 46530
assert bill(14, 1, True) == 2000 and isinstance(bill(501, 1, True), int)
""",
    "CODE-ai-083": """
index = Index()
assert index.suggest("a") == [] and index.suggest("") == []
for name in ("Acer rubrum", "Acer campestre", "abies alba", "Betula nana", "ACER RUBRUM"):
    index.add(name)
assert index.suggest("acer") == ["Acer rubrum", "Acer campestre"]
assert index.suggest("A") == ["Acer rubrum", "abies alba", "Acer campestre"]
index.add("betula NANA", weight=5)
assert index.suggest("", k=2) == ["Betula nana", "Acer rubrum"] and index.suggest("b", 0) == []
assert index.suggest("acer c") == ["Acer campestre"] and index.suggest("cer") == []
assert Index().suggest("a") == []
""",
    "CODE-ai-084": """
import re

def read(line):
    match = re.fullmatch(REFERENCE, line)
    return match and (match["host"], match["seconds"])

assert read("2024-06-03 02:15 OK    nas-2   full  412.7s") == ("nas-2", "412.7")
assert read("2024-06-03 02:31 WARN web_01 incr 9s") == ("web_01", "9")
assert read("2024-06-03 02:40 FAIL  mail    full  -") is None
assert read("2024-06-03 02:40 FAIL  mail    full  3s") is None and read("") is None
assert read("2024-06-03 02:15 OK nas-2 full 412.s") is None
assert read("2024-06-03 02:15 OKAY nas-2 full 4s") is None and read("OK nas-2 full 4s") is None
""",
    "CODE-ai-085": r"""
def kitchen(text):
    return sh(REFERENCE, files={"orders.txt": text}).splitlines()

assert kitchen("5a lasagne 12\n5b curry 7\n6a lasagne 9\n") == [
    "curry        7", "lasagne     21", "all         28"]
assert kitchen("") == ["all          0"]
assert kitchen("1a zander 1\n1a apples 10\n1b zander 999\n1c apples 0\n") == [
    "apples      10", "zander    1000", "all       1010"]
assert kitchen("2c soup 5\n") == ["soup         5", "all          5"]
""",
    "CODE-ai-086": """
import ast

zoo = [{"awake": True, "diet": ["hay", "apple"]}, {"awake": False, "diet": ["mice"]},
       {"awake": True, "diet": ["apple", "fish"]}]
assert foods_needed(zoo) == ["apple", "fish", "hay"]
assert foods_needed([]) == [] and foods_needed([{"awake": False, "diet": ["x"]}]) == []
assert foods_needed([{"awake": True, "diet": list("qpbacdhgfeb")}]) == list("abcdefghpq")
(func,) = ast.parse(REFERENCE).body
assert len(func.body) == 1 and isinstance(func.body[0], ast.Return)
""",
    "CODE-ai-087": """
import random
from itertools import combinations

def valid(exhibits, limit, points):
    got, names = best_load(exhibits, limit)
    table = {name: (kilos, value) for name, kilos, value in exhibits}
    order = [name for name, _, _ in exhibits if name in names]
    return (got == points == sum(table[n][1] for n in names) and list(names) == order
            and sum(table[n][0] for n in names) <= limit)

things = [("globe", 5, 10), ("loom", 40, 55), ("coins", 30, 45), ("kayak", 25, 30)]
assert valid(things, 60, 85) and valid(things, 100, 140) and valid(things, 4, 0)
assert valid(things, 5, 10) and valid([], 50, 0) and valid(things, 0, 0)
rng = random.Random(8)
for _ in range(60):
    items = [(f"x{i}", rng.randrange(1, 9), rng.randrange(1, 20)) for i in range(7)]
    picks = [p for n in range(8) for p in combinations(items, n) if sum(k for _, k, _ in p) <= 15]
    assert valid(items, 15, max(sum(v for _, _, v in p) for p in picks))
assert best_load([(str(i), 7 + i % 13, 5 + i % 17) for i in range(100)], 2000)[0] > 1200
""",
    "CODE-ai-088": r"""
tree = ["Runa: Odd, Astrid\n", "Knut : Liv\n", "Berit:\n", "Astrid:Tor,Siv , Eli\n", "Knut: Aud\n"]
want = ["Astrid (3): Eli, Siv, Tor", "Knut (2): Aud, Liv", "Runa (2): Astrid, Odd", "Berit (0): "]
assert report(tree) == want
assert report(iter(tree)) == want and report([]) == []
assert report(["Per: bo, Al"]) == ["Per (2): Al, bo"]
assert report(["B: x", "A: y", "C"]) == ["A (1): y", "B (1): x", "C (0): "]
""",
    "CODE-ai-089": r"""
suite = [f for name, f in list(globals().items()) if name.startswith("test_")]
good = '''
class Timer:
    def __init__(self, clock):
        self._clock = clock
        self._started = self._last = self._stopped = None
        self.laps = []
    def start(self):
        if self._started is not None:
            raise RuntimeError("already started")
        self._started = self._last = self._clock()
    def lap(self):
        now = self._clock()
        self.laps.append(now - self._last)
        self._last = now
    def stop(self):
        self._stopped = self._clock()
    @property
    def total(self):
        return (self._clock() if self._stopped is None else self._stopped) - self._started
    @property
    def best(self):
        return min(self.laps, default=None)
'''

def verdict(old="", new=""):
    assert old in good
    exec(good.replace(old, new) if old else good, globals())
    try:
        for test in suite:
            test()
    except Exception:
        return False
    return True

assert len(suite) >= 4 and "import" not in REFERENCE and verdict()
assert not verdict("now - self._last", "now - self._started")
assert not verdict("        self._last = now\n", "")
assert not verdict("self._stopped = self._clock()", "pass")
assert not verdict('raise RuntimeError("already started")', "pass")
assert not verdict(", default=None", "") and not verdict("min(", "max(")
""",
    "CODE-ai-090": """
SCHEMA = "CREATE TABLE taxon (id INTEGER PRIMARY KEY, parent_id INTEGER, name TEXT);"
TREE = SCHEMA + '''
INSERT INTO taxon VALUES (1, NULL, 'Plantae'), (2, 1, 'Rosales'), (3, 1, 'Fagales'),
  (4, 2, 'Rosaceae'), (5, 2, 'Cannabaceae'), (6, 3, 'Betulaceae'), (7, 4, 'Malus'), (8, 4, 'Rosa'),
  (9, 7, 'Malus domestica'), (10, 5, 'Humulus');
'''
below = run(TREE, REFERENCE)
assert below == [("Cannabaceae", 1), ("Rosaceae", 1), ("Humulus", 2), ("Malus", 2), ("Rosa", 2),
                 ("Malus domestica", 3)]
assert run(SCHEMA, REFERENCE) == []
assert run(SCHEMA + "INSERT INTO taxon VALUES (1, NULL, 'Rosales');", REFERENCE) == []
assert run(TREE + "DELETE FROM taxon WHERE id = 7;", REFERENCE) == [
    ("Cannabaceae", 1), ("Rosaceae", 1), ("Humulus", 2), ("Rosa", 2)]
""",
    "CODE-ai-091": """
assert turn(350, 20) == 30 and turn(20, 350) == -30
assert turn(0, 180) == 180 and turn(180, 0) == 180 and turn(90, 270) == 180
assert turn(0, 181) == -179 and turn(7, 7) == 0 and turn(0, 360) == 0
assert all(-179 <= turn(a, b) <= 180 and (a + turn(a, b) - b) % 360 == 0
           for a in range(0, 360, 7) for b in range(0, 360, 5))
""",
    "CODE-ai-092": """
import random
import time

assert flood_peaks([3, 1, 2, 5, 4, 4, 0], 3) == [3, 5, 5, 5, 4]
assert flood_peaks([2, 9], 1) == [2, 9] and flood_peaks([2, 9], 2) == [9]
assert flood_peaks([2, 9], 3) == [] and flood_peaks([], 1) == []
rng = random.Random(2)
for _ in range(200):
    levels = [rng.randrange(-5, 6) for _ in range(rng.randrange(12))]
    k = rng.randrange(1, 6)
    assert flood_peaks(levels, k) == [max(levels[i:i + k]) for i in range(len(levels) - k + 1)]
falling = list(range(20_000, 0, -1))
start = time.process_time()
assert flood_peaks(falling, 10_000) == falling[:10_001]
assert flood_peaks(falling[::-1], 10_000) == falling[10_000::-1]
assert time.process_time() - start < 0.5
""",
    "CODE-ai-093": """
assert to_morse("SOS") == "... --- ..."
assert to_morse("hello  World") == ".... . .-.. .-.. --- / .-- --- .-. .-.. -.."
assert to_morse("Wait - it's 5 pm!") == ".-- .- .. - / .. - ... / .--. --"
assert to_morse("") == "" and to_morse(" ?! 42 ") == ""
pangram = "Quick zephyrs blow, vexing daft Jim"
codes = to_morse(pangram.replace(" ", "")).split()
assert len(codes) == 29 and len(set(codes)) == 26 and codes[:3] == ["--.-", "..-", ".."]
assert to_morse("vfjqyxz") == "...- ..-. .--- --.- -.-- -..- --.."
""",
    "CODE-ai-094": """
SCHEMA = "CREATE TABLE answer (person TEXT, question TEXT, score INTEGER);"

def table(*rows):
    values = ", ".join(map(str, rows))
    return run(SCHEMA + f"INSERT INTO answer VALUES {values};", REFERENCE)

assert run(SCHEMA, REFERENCE) == []
assert table(("uma", "q2", 4), ("uma", "q1", 5), ("uma", "q3", 1)) == [("uma", 5, 4, 1)]
assert table(("zed", "q3", 2), ("amy", "q1", 0)) == [("amy", 0, None, None), ("zed", None, None, 2)]
assert table(("kim", "q1", -3), ("kim", "q2", 0)) == [("kim", -3, 0, None)]
""",
    "CODE-ai-095": """
times = ["7.30pm", "7pm", "12.15am", "12pm", "12am", " 11.59PM ", "1.05am"]
assert [to_minutes(t) for t in times] == [1170, 1140, 15, 720, 0, 1439, 65]
shows = {"Nora": "1pm", "Egg": "10am", "Bell": "9am",
         "Moth": "12.30am", "Kite": "12pm", "Ash": "9am"}
assert running_order(shows) == ["Moth", "Ash", "Bell", "Egg", "Kite", "Nora"]
assert running_order({}) == [] and running_order({"B": "8pm", "A": "8.00pm"}) == ["A", "B"]
assert length("10.30pm", "12.45am") == 135 and length("7pm", "9.20pm") == 140
assert length("8pm", "8pm") == 1440 and length("12am", "12pm") == 720
""",
    "CODE-ai-096": r"""
from functools import reduce

def sentence(body):
    return f"${body}*{reduce(lambda a, b: a ^ b, body.encode()):02X}\n"

def same(got, *want):
    return len(got) == len(want) and all(
        g[0] == w[0] and abs(g[1] - w[1]) < 1e-9 and abs(g[2] - w[2]) < 1e-9
        for g, w in zip(got, want))

first = "GPGLL,5907.25,N,01042.10,E,101530,A"
void = sentence(first.replace(",A", ",V"))
noise = sentence("GPGSA,A,3,04,05") + "engine started 10:15\n\n" + void
assert sentence(first).endswith("A*26\n")
assert same(read_fixes(noise + sentence(first)), ("10:15:30", 59 + 7.25 / 60, 10 + 42.1 / 60))
southern = sentence("GPGLL,0030.00,S,10000.60,W,000005,A")
assert same(read_fixes(southern * 2), *[("00:00:05", -0.5, -100.01)] * 2)
assert read_fixes("") == [] == read_fixes(noise)
assert read_fixes("$" + first + "\n$" + first + "*00") == []
assert same(read_fixes(sentence(first).lower().replace("gpgll", "GPGLL")))
""",
    "CODE-ai-097": """
from datetime import date

assert charge_dates(date(2024, 1, 31), 4) == [
    date(2024, 1, 31), date(2024, 2, 29), date(2024, 3, 31), date(2024, 4, 30)]
assert charge_dates(date(2022, 12, 30), 3) == [
    date(2022, 12, 30), date(2023, 1, 30), date(2023, 2, 28)]
assert charge_dates(date(2024, 2, 29), 13)[-1] == date(2025, 2, 28)
assert charge_dates(date(2024, 2, 29), 2)[1] == date(2024, 3, 29)
assert charge_dates(date(2024, 5, 5), 0) == []
assert charge_dates(date(2023, 11, 1), 26)[25] == date(2025, 12, 1)
""",
    "CODE-ai-098": """
stops = ["Alby", "Almere", "Ask", "Bro"]
assert short_names(stops) == {"Alby": "Alb", "Almere": "Alm", "Ask": "As", "Bro": "B"}
hills = {"Berg": "Berg", "Bergen": "Berge", "Bergby": "Bergb"}
assert short_names(list(hills)) == hills
assert short_names([]) == {} and short_names(["Moss"]) == {"Moss": "M"}
assert short_names(["ab", "Ab"]) == {"ab": "a", "Ab": "A"}
many = [f"{n:06}" for n in range(5_000)]
assert short_names(many)["004999"] == "004999" and len(short_names(many)) == 5_000
""",
    "CODE-ai-099": r"""
import re

def doubled(text):
    return re.findall(REFERENCE, text)

assert doubled("Paris in the the spring") == ["the"]
assert doubled("It it was was\nwas cold") == ["It", "was"]
assert doubled("this is the theatre, and Anna and") == [] and doubled("") == []
assert doubled("ha ha ha ha! No, no.") == ["ha"] and doubled("so so  SO") == ["so"]
assert doubled("end of line\nline two two") == ["line", "two"] and doubled("a1 a1") == ["a1"]
""",
    "CODE-ai-100": r"""
assert sh(REFERENCE, stdin="name;City\nAda;Rome\n") == "NAME;CITY\nAda;Rome\n"
assert sh(REFERENCE, stdin="only  head\n") == "ONLY  HEAD\n"
assert sh(REFERENCE, stdin="") == ""
assert sh(REFERENCE, stdin="a\n  b   c\n\nd\n") == "A\n  b   c\n\nd\n"
""",
}
