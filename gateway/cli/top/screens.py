"""Screens above the main one: details of a row, a question before a change, and the help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

HELP_LINES: Final = (
    "Tab, Shift+Tab   next and previous pane",
    "arrows           move in a pane; left and right show what is cut",
    "Page Up, Down    a page at once; Ctrl+Home, Ctrl+End the ends",
    "Enter            details: an upload with its handlers, an event with its errors",
    "r                retry the dead deliveries of the selected handler, or the selected one",
    "d                drop them: their handlers do not run",
    "p                pause the screen, and go on",
    "Ctrl+P           themes and more",
    "q                quit",
    "",
    "Environment: NO_COLOR=1 without colours, TEXTUAL_THEME=textual-light another theme.",
    "For programs: gateway status --json, gateway events list --json",
)


class DetailsScreen(ModalScreen[None]):
    """Text that scrolls. Escape, Enter or q closes it."""

    DEFAULT_CSS = """
    DetailsScreen { align: center middle; }
    DetailsScreen > VerticalScroll { width: 90%; max-width: 120; height: auto; max-height: 90%;
        border: round $accent; padding: 0 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("escape,enter,q,question_mark", "dismiss", "Close")]

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._title = title
        self._lines = lines

    def compose(self) -> ComposeResult:
        """Return the lines in a box, which has the focus so that keys scroll it."""
        with VerticalScroll() as box:
            box.border_title = Text(self._title).markup
            box.border_subtitle = "Escape closes"
            yield Static(Text("\n".join(self._lines)), id="lines")


class QuestionScreen(ModalScreen[bool]):
    """A question before a change: y does it; n, Escape or Enter does not."""

    DEFAULT_CSS = """
    QuestionScreen { align: center middle; }
    QuestionScreen > Vertical { width: auto; max-width: 76; height: auto; border: heavy $warning;
        padding: 1 2; background: $surface; }
    QuestionScreen Static { width: auto; max-width: 70; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "Yes"),
        ("n,escape,enter,q", "answer(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Return the question."""
        with Vertical():
            yield Static(Text(f"{self._text}\n\ny = yes    n = no"), id="question")

    def action_answer(self, yes: bool) -> None:
        """Close with the answer."""
        self.dismiss(yes)
