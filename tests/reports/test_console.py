import io

import pytest

from finetune_eval.reports import console


def test_result_goes_to_stdout_as_it_is(capsys):
    console.show("loss 0.65 → 0.48 [bold]not markup[/bold]")
    out, err = capsys.readouterr()
    assert (out, err) == ("loss 0.65 → 0.48 [bold]not markup[/bold]\n", "")


def test_result_in_a_narrow_encoding_is_printed_all_the_same():
    raw = io.BytesIO()
    narrow = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    console.show("0.65 → 0.48", file=narrow)
    assert raw.getvalue() == b"0.65 ? 0.48\n"


def test_stage_goes_to_stderr(capsys):
    console.stage(2, 5, "models", "all_minilm_l6_v2 [positive]")
    assert capsys.readouterr() == ("", "[2/5] models  all_minilm_l6_v2 [positive]\n")


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (ValueError("`x` must be\n a list; got [red]."), "error: `x` must be a list; got [red].\n"),
        (KeyError("no metric 'f2'"), "error: no metric 'f2'\n"),
        (KeyboardInterrupt(), "error: KeyboardInterrupt\n"),
        ("\x1b[31mword " * 40, "error: " + ("\\x1b[31mword " * 40).strip() + "\n"),
    ],
)
def test_error_is_one_line_on_stderr(capsys, problem, line):
    console.error(problem)
    assert capsys.readouterr() == ("", line)


def test_progress_is_silent_where_there_is_no_terminal(capsys):
    with console.progress("training", 3) as advance:
        advance()
        advance(2, "loss 0.5")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_stays_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.progress("training", 2) as advance:
        advance(2, "loss 0.5")
    out, err = capsys.readouterr()
    assert out == ""
    assert "training" in err and "2/2" in err and "loss 0.5" in err
