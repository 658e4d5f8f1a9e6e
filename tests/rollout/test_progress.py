import io
import re

from rich.console import Console

from diffusion_policy.rollout.progress import ProgressBar


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def test_progress_writes_lines_with_eta_where_there_is_no_terminal():
    out = console(terminal=False)
    with ProgressBar("collect", 3, console=out, every=0) as bar:
        for done in (1, 2, 3):
            bar.update(done, f"note {done}")
    lines = out.file.getvalue().splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"collect 2/3 elapsed 0:00:00 eta 0:00:00 note 2", lines[1])


def test_progress_is_sparing_but_tells_the_end():
    out = console(terminal=False)
    with ProgressBar("train", 1000, console=out, every=100) as bar:
        for done in range(1, 1001):
            bar.update(done)
    assert out.file.getvalue().startswith("train 1000/1000")
    assert out.file.getvalue().count("\n") == 1


def test_progress_eta_counts_only_what_this_run_did(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("diffusion_policy.rollout.progress.time.monotonic", lambda: now[0])
    out = console(terminal=False)
    bar = ProgressBar("train", 100, console=out, every=0)
    bar.start_at(50)
    now[0] = 60.0
    bar.update(60)
    assert out.file.getvalue().splitlines()[-1] == "train 60/100 elapsed 0:01:00 eta 0:04:00"


def test_progress_draws_a_bar_on_a_terminal_and_nothing_when_disabled():
    for enabled in (True, False):
        out = console(terminal=True)
        with ProgressBar("evaluate", 2, console=out, enabled=enabled) as bar:
            bar.update(2, "max reward 0.9")
        assert ("2/2" in out.file.getvalue() and "max reward 0.9" in out.file.getvalue()) == enabled
    out = console(terminal=False)
    with ProgressBar("evaluate", 2, console=out, enabled=False) as bar:
        bar.update(2)
    assert out.file.getvalue() == ""
