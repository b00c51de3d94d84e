"""Search what the site stores and shows for questions of a suite."""

import html
import json
from urllib.parse import quote

from django.db import connection

from tiltyard.competitions.models import Competition


def prompts_of(competition: Competition, visibility: str) -> list[str]:
    suite = competition.suites.get(visibility=visibility)
    lines = [line for path in suite.directory.glob("data/*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line)["prompt"] for line in lines]


def leaked(prompts: list[str]) -> list[tuple[str, str]]:
    """Each table that holds one of the prompts, in whatever writing, with the prompt."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  the names come from the database itself
            text = "\n".join(str(value) for row in cursor.fetchall() for value in row)
            writings = {prompt: {prompt, json.dumps(prompt)[1:-1], prompt.splitlines()[0]} for prompt in prompts}
            found += [(table, prompt) for prompt in prompts if any(writing in text for writing in writings[prompt])]
    return found


def leaks_in(read: dict[str, str], prompts: list[str]) -> list[tuple[str, str]]:
    """Where a prompt stands, as it is or as HTML, JSON or a URL writes it."""
    found = []
    for prompt in prompts:
        lines = [line for line in prompt.splitlines() if len(line) > 20]
        texts = [prompt, *lines]
        writings = {w for text in texts for w in (text, json.dumps(text)[1:-1], html.escape(text), quote(text))}
        found += [(where, prompt) for where, text in read.items() if any(writing in text for writing in writings)]
    return found
