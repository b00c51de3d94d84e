"""Dockerfiles: what is understood, what is refused, and what the engine is given."""

import pytest

from tiltyard_sandbox import dockerfile
from tiltyard_sandbox.verdicts import Reason, SubmissionFault

BASES = ["tiltyard/runtime:cpu", "plain"]


def check(text: str, **base_args: str) -> dockerfile.CheckedDockerfile:
    return dockerfile.check(text.encode(), allowed_bases=BASES, base_args=base_args)


def test_the_documented_form_is_accepted_and_resolved() -> None:
    checked = check("ARG BASE=tiltyard/runtime:cpu\nFROM ${BASE}\nCOPY . /app\n")
    assert checked.bases == {"tiltyard/runtime:cpu"}
    assert checked.rendered() == b"ARG BASE=tiltyard/runtime:cpu\nFROM tiltyard/runtime:cpu\nCOPY . /app\n"


def test_base_arguments_override_the_default() -> None:
    assert check("ARG BASE=evil\nFROM $BASE", BASE="plain").bases == {"plain:latest"}


def test_comments_and_continuation_lines_are_joined() -> None:
    checked = check("# syntax=docker/dockerfile:1\n# note\nFROM plain\nRUN a \\\n  # inside\n\n  && b\nCMD c\n")
    assert checked.rendered() == b"FROM plain:latest\nRUN a   && b\nCMD c\n"


def test_the_escape_directive_is_followed() -> None:
    checked = check("# escape=`\nFROM plain\nRUN a `\n b\\\nCMD c")
    assert checked.rendered() == b"# escape=`\nFROM plain:latest\nRUN a  b\\\nCMD c\n"


def test_stages_may_be_copied_from_and_built_upon() -> None:
    checked = check("FROM plain AS Build\nFROM build AS next\nCOPY --from=0 /a /a\nCOPY --from=build /b /b\n")
    assert checked.bases == {"plain:latest"}


@pytest.mark.parametrize(
    "text",
    [
        "FROM alpine",
        "ARG BASE=alpine\nFROM ${BASE}",
        "ARG BASE=plain\nARG BASE=alpine\nFROM ${BASE}",
        "FROM ${UNSET:-alpine}",
        "FROM plain AS a\nFROM a2",
        "FROM \\\n alpine",
        "FROM plain\nFROM alpine AS plain",
        "FROM --platform=linux/arm64 plain",
        "FROM plain\nCOPY --from=alpine / /",
        "FROM plain\nCOPY --from=1 / /",
        "FROM plain\nCOPY --from=0 / /",
        "FROM plain AS secret\nCOPY --from=secret / /",
        "FROM plain AS a\nFROM plain AS secret\nCOPY --from=Secret / /",
        "FROM plain\nCOPY --fr\\om=alpine / /",
        'FROM plain\nCOPY --"from"=alpine / /',
        "FROM plain\nCOPY --chown=1 --from=alpine / /",
        "FROM plain\nCOPY --from=$X / /",
        "FROM ${BASE\n",
        "FROM $",
        "FROM registry.example:5000/plain",
    ],
)
def test_foreign_images_are_refused(text: str) -> None:
    with pytest.raises(SubmissionFault) as caught:
        check(text)
    assert caught.value.reason is Reason.BUILD_FAILED
    assert "line" in caught.value.message


@pytest.mark.parametrize(
    "rest",
    [
        "http://169.254.169.254/ /x",
        "http:\\//host/ /x",
        'http:"//"host/ /x',
        "$URL /x",
        '["http://host/", "/x"]',
        '["http:\\u002f/host/", "/x"]',
        "git@host:repository /x",
    ],
)
def test_add_takes_no_addresses(rest: str) -> None:
    with pytest.raises(SubmissionFault, match="line 2: ADD"):
        check(f"FROM plain\nADD {rest}")


def test_add_is_a_copy_of_plain_files() -> None:
    checked = check('FROM plain\nADD a.bin /\nADD ["b", "/x"]')
    assert checked.rendered() == b'FROM plain:latest\nCOPY a.bin /\nCOPY ["b", "/x"]\n'


@pytest.mark.parametrize("rest", ["a.tar /", "b a.TAR.gz /", '["a.tgz", "/"]', "--chown=1 *.xz /"])
def test_add_unpacks_no_archives(rest: str) -> None:
    with pytest.raises(SubmissionFault, match="unpacks no archives"):
        check(f"FROM plain\nADD {rest}")


def test_the_head_stands_behind_base_images_alone() -> None:
    """What a stage sets in ENV is seen by the stages upon it: they get the head's label from it, not from the head."""
    rendered = check("FROM plain AS a\nENV X=1\nFROM a AS b\nFROM b\nFROM plain\n").rendered("LABEL y=$X\n")
    assert rendered == (
        b"FROM plain:latest AS a\nLABEL y=$X\nENV X=1\nFROM a AS b\nFROM b\nFROM plain:latest\nLABEL y=$X\n"
    )


def test_volumes_stand_at_the_end_where_no_step_writes_below_them() -> None:
    checked = check('FROM plain\nVOLUME /a /b\nRUN x > /a/y\nVOLUME ["/c d"]\nCOPY . /c\n')
    assert checked.rendered() == b'FROM plain:latest\nRUN x > /a/y\nCOPY . /c\nVOLUME /a /b\nVOLUME ["/c d"]\n'


def test_volumes_of_the_stages_below_are_inherited_and_those_of_others_are_not() -> None:
    text = "FROM plain AS a\nVOLUME /a\nFROM plain AS other\nVOLUME /o\nFROM A AS b\nVOLUME /b\nFROM b\nRUN x\n"
    assert check(text).rendered().endswith(b"FROM b\nRUN x\nVOLUME /a\nVOLUME /b\n")
    assert b"VOLUME" not in check(f"{text}FROM plain\n").rendered()


@pytest.mark.parametrize("rest", ["$V", "/a ${V}/x", '["$V"]', "\\\n  $V"])
def test_a_volume_that_could_mean_something_else_at_the_end_is_refused(rest: str) -> None:
    with pytest.raises(SubmissionFault, match="line 2: VOLUME takes plain paths"):
        check(f"FROM plain\nVOLUME {rest}\n")


@pytest.mark.parametrize(
    "rest",
    [
        "tiltyard.build.x=1",
        "a=b tiltyard.role=submission",
        '"tiltyard.role"=gauge',
        "'tiltyard.role'=gauge",
        'tilt"yard.role"=gauge',
        "tilt\\yard.role=gauge",
        "tilt\\\nyard.role=gauge",
        "a=b \\\n  # note\n\n  Tiltyard.Role=gauge",
        "tiltyard.role gauge",
    ],
)
def test_the_platforms_own_labels_are_refused(rest: str) -> None:
    with pytest.raises(SubmissionFault, match=r"line 2: labels that begin with tiltyard\. are the platform's own"):
        check(f"FROM plain\nLABEL {rest}\n")


def test_no_label_reaches_the_engine() -> None:
    text = "FROM plain\nARG X=tiltyard\nLABEL ${X}.role=gauge\nLABEL a=b\nCMD c\n"
    assert check(text).rendered() == b"FROM plain:latest\nARG X=tiltyard\nCMD c\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no FROM"),
        ("RUN x\nFROM plain", "before the first FROM"),
        ("FROM plain\nONBUILD RUN x", "ONBUILD"),
        ("FROM plain\nRUN <<EOF\nrm -rf /\nEOF", "unknown instruction 'rm'"),
        ("FROM plain\nRUN x \\\\\nADD http://host/ /", "stray"),
        ("FROM plain\nRUN", "needs arguments"),
        ("FROM plain\x00", "control characters"),
        ("# escape=x\nFROM plain", "escape character"),
        ("FROM plain AS 1x", "not a stage's name"),
        ("FROM plain " + "x" * 70_000, "larger than"),
    ],
)
def test_each_mistake_has_its_own_message(text: str, says: str) -> None:
    with pytest.raises(SubmissionFault, match=says):
        check(text)


def test_a_file_that_is_not_text_is_refused() -> None:
    with pytest.raises(SubmissionFault, match="UTF-8"):
        dockerfile.parse(b"FROM \xff")
