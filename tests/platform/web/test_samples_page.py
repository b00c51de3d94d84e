"""The viewer for open samples."""

import pytest
import web_rows
from django.test import Client
from web_rows import Site

from tiltyard.submissions.models import Run, Sample, TaskResult
from tiltyard.submissions.states import RunState


@pytest.fixture
def run(site: Site) -> Run:
    return web_rows.score(web_rows.make_run(site, "racer", state=RunState.SCORED), 0.5, 0.4)


def shown(client: Client, run: Run, query: str = "") -> str:
    response = client.get(f"{run.get_absolute_url()}samples/{query}")
    assert response.status_code == 200
    return response.content.decode()


def test_it_shows_prompt_answer_and_expected_answer(client: Client, run: Run) -> None:
    page = shown(client, run)

    assert page.count('class="card sample"') == 20
    assert "Question: What is" in page
    assert "240 questions" in page
    assert "Page 1 of 12" in page


def test_a_page_leads_to_the_next_with_the_same_filter(client: Client, run: Run) -> None:
    assert "?task=&amp;wrong=&amp;q=What&amp;page=2" in shown(client, run, "?q=What")


def test_it_narrows_down_to_a_task(client: Client, run: Run) -> None:
    task = TaskResult.objects.get(suite_result__run=run, title="Sorting words", suite_result__suite__visibility="open")

    page = shown(client, run, f"?task={task.pk}")

    assert "60 questions" in page
    assert page.count("<h2>Sorting words") == 20


def test_it_narrows_down_to_wrong_answers(client: Client, run: Run) -> None:
    page = shown(client, run, "?wrong=1")

    wrong = Sample.objects.filter(score__lt=1).count()
    assert f"{wrong} question" in page
    assert ">Right<" not in page


def test_it_finds_text_in_prompts_and_answers(client: Client, run: Run) -> None:
    Sample.objects.filter(index=7, task_result__title="Addition").update(answer="a needle in the hay")

    page = shown(client, run, "?q=needle")

    assert "1 question<" in page
    assert "a needle in the hay" in page


@pytest.mark.parametrize("query", ["?task=abc", "?task=-1", "?page=zzz", "?page=99999", "?q=%00", "?task=²"])
def test_odd_filters_do_no_harm(client: Client, run: Run, query: str) -> None:
    shown(client, run, query)


def test_a_sample_of_a_hidden_suite_is_never_shown(owner: Client, organiser: Client, run: Run) -> None:
    """The database holds none; should one ever slip in, the page still keeps it back."""
    hidden = TaskResult.objects.filter(suite_result__run=run, suite_result__suite__visibility="hidden").first()
    assert hidden is not None
    Sample.objects.create(task_result=hidden, index=0, prompt="SECRET", answer="SECRET", expected="SECRET", score=0)

    for visitor in (owner, organiser):
        for query in ("?q=SECRET", f"?task={hidden.pk}"):
            assert "No such question" in shown(visitor, run, query)


def test_an_answer_cannot_bring_markup_into_the_page(client: Client, run: Run) -> None:
    Sample.objects.filter(index=0).update(answer="<script>alert(1)</script>", prompt="<img src=x onerror=alert(1)>")

    page = shown(client, run)

    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_search_text_cannot_bring_markup_into_the_page(client: Client, run: Run) -> None:
    page = shown(client, run, "?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")

    assert "<script>alert" not in page
