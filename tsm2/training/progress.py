"""A progress bar on standard error, with the time left; or nothing at all."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["StepBar", "step_bar"]


class StepBar:
    """A bar over all steps of a fit.

    Parameters
    ----------
    bar
        Where it is drawn; None draws nothing.
    steps
        Steps from the first to the last.
    """

    def __init__(self, bar: Progress | None, steps: int) -> None:
        self.bar = bar
        if bar is not None:
            self.task = bar.add_task("fit", total=steps, losses="")

    def advance(self, steps: int) -> None:
        """Show that so many more steps are done."""
        if self.bar is not None:
            self.bar.advance(self.task, steps)

    def end(self, summary: str) -> None:
        """End the bar where it is, also before the last step, and leave a summary behind it."""
        if self.bar is not None:
            self.bar.update(self.task, total=self.bar.tasks[self.task].completed, losses="")
            self.bar.console.print(summary, highlight=False, markup=False, soft_wrap=True)

    def report(self, losses: str) -> None:
        """Show a text behind the bar."""
        if self.bar is not None:
            self.bar.update(self.task, losses=losses)


@contextmanager
def step_bar(steps: int, show: bool) -> Iterator[StepBar]:
    """Show a bar as long as the context lasts."""
    if not show:
        yield StepBar(None, steps)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield StepBar(bar, steps)
