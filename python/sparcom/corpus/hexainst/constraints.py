"""What instructions of the bundled half demand of an answer, where a program can tell.

Lengths, numbers of lines, words that must or must not be there; by id. What else makes an answer
good is not said here.
"""

import re
from collections.abc import Callable

# id -> least and most words of the whole reference
WORDS = {
    "GEN-ai-001": (0, 130), "GEN-ai-003": (120, 180), "GEN-ai-006": (0, 99),
    "GEN-ai-009": (0, 90), "GEN-ai-014": (85, 115), "GEN-ai-019": (80, 120),
    "GEN-ai-024": (0, 119), "GEN-ai-028": (85, 115), "GEN-ai-031": (100, 140),
    "GEN-ai-040": (0, 129), "GEN-ai-044": (90, 130), "GEN-ai-047": (120, 160),
    "GEN-ai-048": (80, 120), "GEN-ai-050": (60, 80), "GEN-ai-052": (0, 150),
    "GEN-ai-053": (0, 109), "GEN-ai-057": (0, 70), "GEN-ai-059": (70, 90),
    "GEN-ai-060": (0, 139), "GEN-ai-062": (120, 170), "GEN-ai-065": (0, 199),
    "GEN-ai-067": (50, 70), "GEN-ai-069": (135, 165), "GEN-ai-071": (85, 115),
    "GEN-ai-080": (0, 149), "GEN-ai-082": (0, 89), "GEN-ai-085": (80, 100),
    "GEN-ai-093": (70, 100), "GEN-ai-095": (0, 119), "GEN-ai-097": (0, 129),
    "GEN-ai-099": (90, 130), "QA-ai-084": (0, 25), "SUM-ai-004": (0, 50),
    "SUM-ai-007": (0, 9), "SUM-ai-009": (0, 70), "SUM-ai-014": (0, 25),
    "SUM-ai-017": (70, 90), "SUM-ai-020": (0, 60), "SUM-ai-023": (0, 8),
    "SUM-ai-024": (0, 60), "SUM-ai-030": (0, 30), "SUM-ai-031": (0, 110),
    "SUM-ai-032": (17, 23), "SUM-ai-035": (0, 30), "SUM-ai-039": (0, 20),
    "SUM-ai-045": (60, 80), "SUM-ai-047": (50, 50), "SUM-ai-052": (60, 80),
    "SUM-ai-065": (0, 25), "SUM-ai-067": (0, 60), "SUM-ai-069": (0, 40),
    "SUM-ai-071": (0, 12), "SUM-ai-072": (0, 80), "SUM-ai-074": (50, 70),
    "SUM-ai-075": (90, 110), "SUM-ai-079": (0, 100), "SUM-ai-084": (0, 25),
    "SUM-ai-086": (40, 55), "SUM-ai-090": (0, 60), "SUM-ai-091": (0, 30),
    "SUM-ai-095": (0, 20), "SUM-ai-096": (0, 75),
}  # fmt: skip

# id -> how many lines, and the most words of each without its bullet, number or label
LINES = {
    "GEN-ai-004": (6, 7), "GEN-ai-027": (5, 8), "GEN-ai-049": (3, 12), "GEN-ai-051": (6, 11),
    "SUM-ai-016": (4, 19), "SUM-ai-063": (5, 25), "SUM-ai-080": (11, 10), "SUM-ai-093": (5, 35),
    "SUM-ai-094": (3, 10),
}  # fmt: skip


def spoken(dialogue: str) -> int:
    return len(re.findall(r"(?m)^[A-Z ]+: ", dialogue))


def items(text: str) -> list[str]:
    """The lines of a list, without their bullets or numbers."""
    lines = re.findall(r"(?m)^(?:- |\d+\. )(.+)$", text)
    return [line.strip() for line in lines]


def shrinking(text: str) -> bool:
    lengths = [len(sentence.split()) for sentence in re.split(r"(?<=\.) ", text)]
    return len(lengths) == 5 and lengths == sorted(set(lengths), reverse=True)


def faq(text: str, question: int, answer: int) -> bool:
    limits = {"Q": question, "A": answer}
    lines = [line.split(": ", 1) for line in text.splitlines() if line]
    return len(lines) == 8 and all(len(said.split()) <= limits[who] for who, said in lines)


# id -> what else its instruction demands
OTHER: dict[str, Callable[[str], bool]] = {
    "GEN-ai-002": lambda text: "o" not in text.lower() and len(text.splitlines()) == 6,
    "GEN-ai-007": lambda text: 8 <= spoken(text) <= 10,
    "GEN-ai-009": lambda text: "!" not in text and "adventure" not in text.lower(),
    "GEN-ai-011": lambda text: len(items(text)) == 8,
    "GEN-ai-015": lambda text: "".join(line[0] for line in text.splitlines()) == "NETTLE",
    "GEN-ai-020": lambda text: len(items(text)) == 7 and text.count("Classroom:") >= 2,
    "GEN-ai-027": lambda text: sum(line.endswith("?") for line in items(text)) == 1,
    "GEN-ai-033": lambda text: (
        len({line.split()[0] for line in items(text)}) == 8
        and not re.search(r"cotton wool|blanket|soup|ghost", text)
    ),
    "GEN-ai-035": lambda text: not re.search(r"\bloss\b|passed away", text.lower()),
    "GEN-ai-037": lambda text: re.sub(r"\W+$", "", text).endswith(" line"),
    "GEN-ai-039": lambda text: text.startswith("Subject:") and text.count("12 June") == 1,
    "GEN-ai-042": lambda text: spoken(text) == 10 and "money" not in text.lower(),
    "GEN-ai-055": lambda text: [len(line.split()) for line in items(text)] == [6] * 10,
    "GEN-ai-062": lambda text: text.rstrip().endswith('"'),
    "GEN-ai-063": lambda text: 6 <= len(text.split("\n\n")) <= 9,
    "GEN-ai-067": lambda text: "?" not in text,
    "GEN-ai-071": lambda text: text.count("?") == 1 and text.rstrip().endswith("?"),
    "GEN-ai-074": lambda text: (
        len(text.split("\n\n")[0].split()) <= 60 and len(text.split("\n\n")[1].split()) == 3
    ),
    "GEN-ai-077": lambda text: spoken(text) == 12,
    "GEN-ai-083": shrinking,
    "GEN-ai-092": lambda text: len(re.findall(r"goat|Duchess", text)) >= 3,
    "GEN-ai-096": lambda text: sum(map(int, re.findall(r"(?m)€(\d+) \|$", text))) == 2 * 180,
    "SUM-ai-012": lambda text: max(len(line.split()) for line in items(text)) <= 10,
    "SUM-ai-054": lambda text: max(len(line.split()) for line in items(text)) < 15,
    "SUM-ai-073": lambda text: faq(text, 10, 30),
    "SUM-ai-085": lambda text: (
        text.splitlines()[0].count(";") == 4 and len(text.splitlines()[1].split()) <= 20
    ),
}


def constraint_of(name: str) -> Callable[[str], bool] | None:
    """Whether an answer keeps everything that the instruction of this id demands; None if no
    demand of it is known.

    >>> constraint_of("SUM-ai-014")("Far too many words. " * 9)
    False
    """
    parts: list[Callable[[str], bool]] = []
    if name in WORDS:
        least, most = WORDS[name]
        parts.append(lambda text: least <= len(text.split()) <= most)
    if name in LINES:
        count, longest = LINES[name]
        parts.append(lambda text: _has_lines(text, count, longest))
    if name in OTHER:
        parts.append(OTHER[name])
    return (lambda text: all(_holds(part, text) for part in parts)) if parts else None


def _has_lines(text: str, count: int, longest: int) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    texts = [re.sub(r"^(- |\d+\. |(Who|What|When|Where|Why): )", "", line) for line in lines]
    return len(lines) == count and max(len(text.split()) for text in texts) <= longest


def _holds(part: Callable[[str], bool], text: str) -> bool:
    """False too for an answer without the lines or fields that a check reads."""
    try:
        return bool(text.strip()) and part(text)
    except (IndexError, KeyError, ValueError):
        return False
