"""Every sentence of `sections` stands in the text, on the page and in the card, in the same order."""

import html
import re

import pytest

from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.sections import Section, sections
from finetune_eval.reports.card import write_card
from finetune_eval.reports.html import report


def words(text):
    return " ".join(re.sub(r"^!? +|^- ", "", text, flags=re.MULTILINE).split())


@pytest.mark.parametrize("which", ["binary", "doubtful", "plain", "hostile"])
def test_text_page_and_card_say_the_same(tmp_path, request, seeds, which):
    evaluation = request.getfixturevalue(which)
    others = {"comparison": compare(evaluation, evaluation), "seeds": seeds}
    page = report(evaluation, tmp_path / "r.html", **others).read_text("utf-8")
    page = words(html.unescape(re.sub(r"<[^>]*>", " ", page[page.index("<header>") :])))
    markdown = write_card(evaluation, tmp_path / "card.md", **others).read_text("utf-8")
    markdown = words(html.unescape(re.sub(r"\\(.)", r"\1", markdown.replace("**", ""))))
    ends = [0, 0]
    for section in sections(evaluation, **others):
        for sentence in (*section.warnings, *section.sentences):
            for i, text in enumerate((page, markdown)):
                place = text.find(words(sentence), ends[i])
                assert place >= 0, (("page", "card")[i], section.key, sentence)
                ends[i] = place
    text, last = words(str(evaluation).replace("\n! ", "\n")), 0
    for section in sections(evaluation):
        for sentence in () if section.key == "care" else (*section.warnings, *section.sentences):
            last = text.find(words(sentence), last)
            assert last >= 0, (section.key, sentence)


def test_a_new_section_is_one_entry(tmp_path, monkeypatch, binary):
    from finetune_eval.evaluation import _summary
    from finetune_eval.reports import _words

    def more(evaluation, **others):
        return [*sections(evaluation, **others), Section("new", "A new part", ("It is said once.",))]

    monkeypatch.setattr(_summary, "sections", more)
    monkeypatch.setattr(_words, "sections", more)
    assert str(binary).endswith("\n\nIt is said once.")
    assert "<h2>A new part</h2>\n<p>It is said once.</p>" in report(binary, tmp_path / "r.html").read_text(
        "utf-8"
    )
    assert "## A new part\n\nIt is said once." in write_card(binary, tmp_path / "c.md").read_text("utf-8")
