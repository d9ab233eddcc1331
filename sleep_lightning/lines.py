"""Sentences on a terminal: wrapped between words, so that no number is cut; what is copied stays one piece."""

from textwrap import TextWrapper

from rich.console import Console
from rich.text import Text

COPIED = ("://", "python -m ", "sleep-lightning ")
"""Parts of a text that a person copies: a link or a command would be broken by the end of a line."""


def print_line(console: Console, text: str, indent: int = 0) -> None:
    """Print a text as it is, on lines of its own: whole if it is to be copied, and where there is no terminal.

    Args:
        console: where to.
        text: without markup.
        indent: columns before the second line and those that follow.
    """
    if console.is_terminal and not any(part in text for part in COPIED):
        fold = TextWrapper(console.width, break_long_words=False, break_on_hyphens=False)
        fold.subsequent_indent = " " * indent
        text = "\n".join(fold.fill(line) for line in text.split("\n"))
    console.print(Text(text), highlight=False, soft_wrap=True)
