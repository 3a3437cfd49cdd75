"""Progress goes to stderr, and parts of a work fit into the whole."""

from __future__ import annotations

from agent_specializer.progress import console_progress, span


def test_console_progress_keeps_stdout_clean_and_says_each_message_once(capsys):
    with console_progress() as progress:
        progress("reading [a]", 0.1)
        progress("reading [a]", 0.2)
        progress("writing", None)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "reading [a]\nwriting\n"


def test_span_draws_a_part_inside_the_whole():
    heard = []
    part = span(lambda message, fraction: heard.append((message, fraction)), 0.5, 0.75)
    part("start", 0.0)
    part("unknown", None)
    part("end", 1.0)
    assert heard == [("start", 0.5), ("unknown", None), ("end", 0.75)]
