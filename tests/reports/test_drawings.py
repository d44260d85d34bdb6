import dataclasses
import re

from finetune_eval.data.ledger import DataTrace, Step
from finetune_eval.reports._drawings import data_flow, prediction_flow


def widths(drawing, style):
    return [
        float(w) for w in re.findall(rf'width="([\d.]+)" height="[\d.]+" rx="2" class="{style}"', drawing)
    ]


def test_bars_of_the_data_are_on_one_scale(data):
    drawn = data_flow(data)
    # 1,000 rows are the most: their bar is 330 of 360 units wide; 750 and 250 rows take their share of it.
    assert widths(drawn, "fill") == [330, 247.5, 82.5]
    assert widths(drawn, "track") == [330, 330, 330]
    for shape in ("1,000 × 2", "750 × 2", "250 × 2"):
        assert shape in drawn


def test_step_without_rows_is_drawn():
    drawn = data_flow(DataTrace((Step("read", "empty.csv", 0, 2, 0, 2),)))
    assert widths(drawn, "fill") == [1]
    assert "0 × 2" in drawn


def test_prediction_goes_from_text_to_answer(prediction):
    drawn = prediction_flow(prediction)
    found = [
        drawn.index(f'class="strong">{stage}<')
        for stage in ("text", "tokens", "embedding", "layers", "pooling", "softmax", "answer")
    ]
    assert found == sorted(found)
    assert widths(drawn, "fill") == [80 * 0.881, 80 * 0.119]  # the most probable class first
    assert "moved 1 %" in drawn and "cos 0.50" in drawn
    assert "from 0.500 on" in drawn
    assert "<script" not in drawn and "<img" not in drawn


def test_long_things_are_cut_and_counted(prediction):
    many = dataclasses.replace(
        prediction,
        text="word " * 500,
        tokens=("word",) * 500,
        token_ids=(1,) * 500,
        tokens_cut=7,
        labels=tuple(f"c{k}" for k in range(20)),
        logits=(0.0,) * 20,
        probabilities=(0.05,) * 20,
        answer="c0",
        layers=(),
    )
    drawn = prediction_flow(many)
    shown = drawn.count('class="chip"')
    assert f"and {500 - shown} more tokens" in drawn
    assert "7 more were cut off before the model" in drawn
    assert "and 8 less probable classes" in drawn
    assert 'class="strong">layers<' not in drawn
