"""The screen of `gateway top`: panes that are filled anew every second.

Bounded: a pane has the rows of one answer (at most 100 uploads, 100 dead deliveries), and of the rates
the latest `HISTORY` are kept.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.widgets import DataTable, Footer, Static

from gateway.cli.top import rows
from gateway.cli.top.rows import Row
from gateway.cli.top.screens import HELP_LINES, DetailsScreen, QuestionScreen
from gateway.cli.top.snapshot import ServerReader, ServerUnreachable, Snapshot
from gateway.events.protocols import Selection, Verb
from gateway.settings import Settings

INTERVAL: Final = 1.0
"""Seconds between two looks."""

HISTORY: Final = 12
MAX_ATTENTION: Final = 4
"""Lines of what needs attention; `gateway status` has all."""

_DONE: Final = {"retry": "retried", "drop": "dropped", "replay": "replayed"}


class Pane(Vertical):
    """A titled table, whose selected row stays selected from look to look; without rows, a line."""

    DEFAULT_CSS = """
    Pane { border-top: solid $primary-muted; border-title-color: $text-muted; height: 1fr; }
    Pane:focus-within { border-top: heavy $primary; border-title-color: $text; }
    Pane DataTable { height: 1fr; background: $background; scrollbar-size-horizontal: 0; }
    Pane .empty { color: $text-muted; padding: 0 1; }
    """

    def __init__(self, name: str, title: str, columns: Sequence[str], empty: str) -> None:
        super().__init__(id=name)
        self.border_title = title
        self._columns = columns
        self._empty = Static(Text(empty), classes="empty")
        self.table: DataTable[Text] = DataTable(cursor_type="row", zebra_stripes=True)
        self._shown: list[Row] = []

    def compose(self) -> ComposeResult:
        """Return the table and the line of an empty one."""
        yield self._empty
        yield self.table

    def on_mount(self) -> None:
        """Add the columns."""
        self.table.show_cursor = False
        for column in self._columns:
            self.table.add_column(column, key=column)

    def on_descendant_focus(self) -> None:
        """Show which row keys are for."""
        self.table.show_cursor = True

    def on_descendant_blur(self) -> None:
        """Show no row as selected: keys are for another pane."""
        self.table.show_cursor = False

    @property
    def selected(self) -> str | None:
        """The key of the selected row."""
        if not self._shown:
            return None
        return self._shown[min(self.table.cursor_row, len(self._shown) - 1)].key

    def fill(self, shown: Iterable[Row]) -> None:
        """Show these rows; the selected one stays selected."""
        new, old, selected = [*shown], self._shown, self.selected
        self._empty.display = not new
        keys = [row.key for row in new]
        if keys == [row.key for row in old]:
            for row, before in zip(new, old, strict=True):
                for column, cell, last in zip(self._columns, row.cells, before.cells, strict=True):
                    if cell != last:
                        self.table.update_cell(row.key, column, cell, update_width=True)
        else:
            position, top = self.table.cursor_row, self.table.scroll_offset.y
            self.table.clear()
            for row in new:
                self.table.add_row(*row.cells, key=row.key)
            self.table.move_cursor(
                row=keys.index(selected) if selected in keys else min(position, len(new) - 1),
                scroll=False,
            )
            self.table.scroll_to(y=top, animate=False)
        self._shown = new


class GatewayTop(App[None]):
    """The main screen."""

    TITLE = "gateway top"
    CSS = """
    #head { height: 1; background: $panel; padding: 0 1; }
    #figures { height: auto; max-height: 3; padding: 0 1; }
    #attention { height: auto; max-height: 5; padding: 0 1; }
    GatewayTop:nocolor DataTable > .datatable--cursor { text-style: reverse; }
    #panes { height: 1fr; layout: vertical; }
    Pane:focus-within { height: 2fr; }
    .wide #panes { layout: grid; grid-size: 2 2; }
    .wide Pane, .wide Pane:focus-within { height: 1fr; }
    .wide #backlog { row-span: 2; }
    .unreachable #panes { opacity: 60%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("p", "pause", "Pause"),
        ("r", "change('retry')", "Retry"),
        ("d", "change('drop')", "Drop"),
        ("question_mark", "help", "Help"),
    ]

    def __init__(self, settings: Settings) -> None:
        # Without colours Textual takes away those of the terminal only; of its own it makes greys.
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)
        self.HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (140, "wide")]
        self._directory = str(settings.directory)
        self._reader = ServerReader(settings)
        self._rates: deque[float] = deque([0.0] * HISTORY, maxlen=HISTORY)
        self._snapshot: Snapshot | None = None
        self._paused = False
        self._wake = asyncio.Event()

    def compose(self) -> ComposeResult:
        """Return the parts of the screen."""
        yield Static(id="head")
        yield Static(id="figures")
        with Container(id="panes"):
            yield Pane("active", "On their way", rows.ACTIVE_COLUMNS, "no upload is on its way")
            yield Pane("backlog", "Handlers", rows.BACKLOG_COLUMNS, "nothing waits for a handler")
            yield Pane("latest", "Latest uploads", rows.LATEST_COLUMNS, "nothing was uploaded yet")
        yield Static(id="attention")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to follow the server."""
        self.query_one("#active", Pane).table.focus()
        self._head(Text(f"{self._directory}: connecting"))
        self._follow()

    @work
    async def _follow(self) -> None:
        """Look at the server again and again, also where it is away."""
        while True:
            if not self._paused:
                try:
                    snapshot = await self._reader.read()
                except ServerUnreachable as error:
                    self._show_unreachable(str(error))
                else:
                    self._show(snapshot)
            self._wake.clear()
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._wake.wait()
            except TimeoutError:
                continue

    # -- showing

    def _show(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._rates.append(snapshot.live["rates"]["bytes_per_second"] or 0.0)
        self.screen_stack[0].remove_class("unreachable")
        self._head(rows.title_line(snapshot))
        self._static("#figures").update(rows.figure_lines(snapshot, self._rates))
        lines = rows.attention_lines(snapshot)
        if more := len(lines) - MAX_ATTENTION:
            lines = lines[:MAX_ATTENTION] + ([Text(f"and {more} more")] if more > 0 else [])
        attention = self._static("#attention")
        attention.display = bool(lines)
        attention.update(Text("\n", no_wrap=True, overflow="ellipsis").join(lines))
        active = self._pane("active")
        active.fill(rows.active_rows(snapshot.live))
        active.border_title = f"On their way ({snapshot.live['active_count']:,})"
        self._pane("latest").fill(rows.latest_rows(snapshot))
        self._pane("backlog").fill(rows.backlog_rows(snapshot))

    def _show_unreachable(self, reason: str) -> None:
        self.screen_stack[0].add_class("unreachable")
        self._head(Text(f"NO ANSWER: {reason}; trying again", rows.STYLES["bad"]))

    def _head(self, text: Text) -> None:
        paused = Text("PAUSED, p goes on  " if self._paused else "", rows.STYLES["warn"])
        self._static("#head").update(Text.assemble(paused, text, no_wrap=True, overflow="ellipsis"))

    def _static(self, selector: str) -> Static:
        return self.screen_stack[0].query_one(selector, Static)

    def _pane(self, name: str) -> Pane:
        return self.screen_stack[0].query_one(f"#{name}", Pane)

    # -- keys

    def action_pause(self) -> None:
        """Keep the screen as it is, or go on."""
        self._paused = not self._paused
        if self._snapshot is not None:
            self._head(rows.title_line(self._snapshot))
        self._wake.set()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(DetailsScreen("gateway top", HELP_LINES))

    @property
    def _selected(self) -> str:
        """The key of the selected row of the pane that has the focus."""
        pane = next((pane for pane in self.query(Pane) if pane.has_focus_within), None)
        return "" if pane is None else pane.selected or ""

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Show the details of a row (Enter)."""
        self._show_details(str(event.row_key.value))

    @work(exclusive=True, group="details")
    async def _show_details(self, key: str) -> None:
        kind, _, rest = key.partition(":")
        if kind == "group":
            state, _, handler = rest.partition(":")
            self.notify(f"gateway events list --state {state} --handler {handler}", markup=False)
            return
        try:
            if kind == "upload":
                title, lines = "Upload", await self._reader.describe_upload(rest)
            else:
                title, lines = "Event", await self._reader.describe_event(rest.partition(":")[0])
        except ServerUnreachable as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self.push_screen(DetailsScreen(title, lines))

    @work(exclusive=True, group="change")
    async def action_change(self, verb: Verb) -> None:
        """Retry or drop what is selected, after a question."""
        key = self._selected
        kind, _, rest = key.partition(":")
        first, _, handler = rest.partition(":")
        if kind == "group" and first == "dead":
            selection, what = (
                Selection(state="dead", handler=handler),
                f"all dead deliveries of {handler}",
            )
        elif kind == "delivery":
            selection = Selection(state="dead", handler=handler, events=(first,))
            what = f"this delivery of {handler}"
        else:
            self.notify(f"select dead deliveries in the pane Handlers to {verb} them")
            return
        lost = " The handler will not run." if verb == "drop" else ""
        if not await self.push_screen_wait(QuestionScreen(f"{verb.capitalize()} {what}?{lost}")):
            return
        try:
            count = await self._reader.change(verb, selection)
        except ServerUnreachable as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            self.notify(f"{_DONE[verb]} {count}")
        self._wake.set()
