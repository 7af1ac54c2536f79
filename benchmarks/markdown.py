"""Tables in Markdown."""

NOT_MEASURED = "not measured"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of these cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
