"""How the state of a search looks to a person: lines of text, and on a terminal a live board of them."""

from typing import Any

from pipeline.search.snapshot import FAILURES, RunningTrial, Snapshot
from pipeline.text import format_seconds, one_line, printable

_NUM_BAR_CELLS = 24


class Board:
    """The state of a search at the foot of a terminal; what is printed on stderr meanwhile scrolls above it.

    It changes no mode of the terminal and leaves the cursor visible, so that even a kill leaves a sane terminal.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=True, redirect_stdout=False)

    def start(self, snapshot: Snapshot) -> None:
        """Take the foot of the terminal and draw; stderr goes through the board from now on."""
        self.live.start()
        self.console.show_cursor(True)  # before anything is drawn: a kill may come at any time
        self.show(snapshot)

    def stop(self) -> None:
        """Wipe the board away and give stderr back."""
        self.live.stop()

    def show(self, snapshot: Snapshot) -> None:
        self.live.update(drawing(snapshot), refresh=True)


def drawing(snapshot: Snapshot) -> Any:
    """Return the board as rich draws it; foreign text is never read as markup."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    bars = Table.grid(padding=(0, 2))
    for trial in snapshot.running:
        bar = ProgressBar(total=1.0, completed=trial.fraction, width=_NUM_BAR_CELLS)
        bars.add_row(Text(title_of(trial), no_wrap=True), bar, Text(place_of(trial), no_wrap=True, overflow="ellipsis"))
    lines = (best_line(snapshot), trials_line(snapshot), time_line(snapshot))
    best, trials, clock = (Text(line, overflow="fold") for line in lines)
    return Group(Rule(Text(printable(snapshot.study), style="bold"), align="left"), best, bars, trials, clock)


def best_line(snapshot: Snapshot) -> str:
    """Return the best trial so far, with what it is made of."""
    row = snapshot.best
    if row is None:
        return "best     none yet"
    values = (f"{name} {f'{value:.2g}' if isinstance(value, float) else value}" for name, value in row.params.items())
    params = printable(", ".join(values), kept="")
    return f"best     trial {row.number}: {snapshot.objective} {row.score:.4f}, {row.num_params:,} params; {params}"


def trials_line(snapshot: Snapshot) -> str:
    """Return how many trials there are in each state, with the commonest reason of failures."""
    counts = snapshot.trials
    text = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none yet"
    failure = snapshot.commonest_failure
    if failure is None:
        return f"trials   {text}"
    num_failed = sum(counts[name.lower()] for name in FAILURES)
    reason = one_line(failure.reason, longest=100)
    share = "" if failure.count == num_failed else f"{failure.count:,} of {num_failed:,}: "
    return f"trials   {text} ({share}{reason})"


def time_line(snapshot: Snapshot) -> str:
    """Return the time that is spent and what is known of the rest."""
    budget, eta = snapshot.budget_seconds, snapshot.eta_seconds
    total = "" if budget is None else f" of {format_seconds(budget)}"
    rest = "" if eta is None else f", about {format_seconds(eta)} left"
    return f"elapsed  {format_seconds(snapshot.elapsed_seconds)}{total}{rest}"


def title_of(trial: RunningTrial) -> str:
    if trial.trial is not None:
        return f"trial {trial.trial} rung {trial.rung}"
    if trial.is_student:
        return "the winner, distilled"
    if trial.has_second_seed:
        return "the winner, with another seed"
    if trial.num_networks > 1:
        return f"{trial.num_networks} networks in turn"
    return "the reference network" if trial.is_baseline else "the winner"


def place_of(trial: RunningTrial) -> str:
    if trial.epoch == 0:
        return "starts"
    since = trial.seconds_since_step
    silent = f", no step for {format_seconds(since)}" if since is not None and since >= 10 else ""
    return f"epoch {trial.epoch}/{trial.num_epochs}, batch {trial.batch:,}/{trial.num_batches:,}{silent}"
