"""Tables in GitHub's Markdown."""

from collections.abc import Collection, Iterable, Sequence


def markdown_table(
    headings: Sequence[str], lines: Iterable[Sequence[str]], left: Collection[int] = (0,)
) -> str:
    """A table whose cells may hold any text but line breaks.

    Args:
        headings: of the columns.
        lines: cells, as many as headings.
        left: columns that are texts; the others are numbers, set to the right.
    """
    rule = "|" + "".join(":--|" if i in left else "--:|" for i in range(len(headings)))
    rows = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
        for line in [headings, *lines]
    ]
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"
