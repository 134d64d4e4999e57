"""Progress where there is no terminal: a line every ten seconds, with an estimate as soon as there is one."""

from microtome.cli import display


def test_lines_of_progress_begin_before_anything_is_done(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    with display.progress_bar() as progress:
        for seconds, done, message in ((4, 0, "reading"), (11, 0, "reading"), (15, 1, "fitting"), (30, 5, "fitting")):
            now[0] = 100.0 + seconds
            progress(done, 20, message)
    assert capsys.readouterr().err.splitlines() == [
        "microtome:   0% reading, 11 s",
        "microtome:  25% fitting, 30 s, about 90 s left",
    ]
