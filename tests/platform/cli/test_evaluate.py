"""`tiltyard evaluate` for real: images built, containers started, questions asked."""

import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import docker
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
BUNDLE = REPOSITORY / "competitions" / "demo"
HOW_TO = REPOSITORY / "docs" / "how-to" / "pack-your-own-server.md"
FILES = {"server.py": "python", "Dockerfile": "dockerfile", "tiltyard.yaml": "yaml"}


@pytest.fixture
def adder(tmp_path: Path) -> Path:
    """The submission that the how-to describes, typed off literally."""
    directory = tmp_path / "adder"
    directory.mkdir()
    blocks: dict[str, str] = {}
    for language, text in re.findall(r"```(\w+)\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL):
        blocks.setdefault(language, text)
    for name, language in FILES.items():
        (directory / name).write_text(blocks[language], encoding="utf-8")
    return directory


@pytest.fixture
def images(docker_client: docker.DockerClient) -> None:
    """The base images; scripts/base_images.py makes what is missing."""
    try:
        for name in ("tiltyard/python:3.11", "tiltyard/runtime:cpu", "tiltyard/evaluator:local"):
            docker_client.images.get(name)
    except docker.errors.ImageNotFound:
        subprocess.run([sys.executable, str(REPOSITORY / "scripts" / "base_images.py")], check=True)


@pytest.fixture
def served(adder: Path, unused_port: int) -> Iterator[str]:
    """The how-to's server, started by hand; its address."""
    environment = {"TILTYARD_PORT": str(unused_port), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen([sys.executable, str(adder / "server.py")], env=environment) as process:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", unused_port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{unused_port}"
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)


def scores(document: dict) -> dict[str, float]:
    """Task name to score, of the one suite."""
    (suite,) = document["suites"]
    return {task["name"]: task["score"] for task in suite["tasks"]}


def test_a_server_by_its_address(tiltyard_process: Callable, served: str, tmp_path: Path) -> None:
    ran = tiltyard_process("evaluate", served, "--competition-dir", BUNDLE, "--out", tmp_path / "out", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert scores(ran.document)["addition"] == 1.0
    assert scores(ran.document)["sort_words"] == 0.0
    report = Path(ran.document["suites"][0]["report"]).read_text(encoding="utf-8")
    assert "Addition" in report
    assert "default-src 'none'" in report


def test_a_server_that_is_not_there(tiltyard_process: Callable, unused_port: int, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    description = (BUNDLE / "competition.yaml").read_text(encoding="utf-8").replace("start_s: 120", "start_s: 1")
    (bundle / "competition.yaml").write_text(description, encoding="utf-8")
    (bundle / "suites").mkdir()
    subprocess.run(["cp", "-r", str(BUNDLE / "suites" / "open"), str(bundle / "suites")], check=True)
    url = f"http://127.0.0.1:{unused_port}"
    ran = tiltyard_process("evaluate", url, "--competition-dir", bundle, "--out", tmp_path / "out", "--json")
    assert ran.exit_code == 3
    assert ran.document["status"] == "failed"
    assert ran.document["failure"]["reason"] == "start_timeout"


@pytest.mark.docker
@pytest.mark.slow
def test_the_how_to_works_and_folder_and_image_score_the_same(
    tiltyard_process: Callable, docker_client: docker.DockerClient, images: None, adder: Path, tmp_path: Path
) -> None:
    options = ["--competition-dir", BUNDLE, "--json"]
    folder = tiltyard_process("evaluate", adder, *options, "--out", tmp_path / "folder")
    assert folder.exit_code == 0, folder.stderr
    assert scores(folder.document)["addition"] == 1.0

    name = f"tiltyard-test-adder:{tmp_path.name.lower()}"
    labels = {"name": "adder", "base_model": "squire", "training_data": "none", "licence": "Apache-2.0"}
    built, _ = docker_client.images.build(
        path=str(adder),
        tag=name,
        network_mode="none",
        rm=True,
        forcerm=True,
        labels={f"tiltyard.{key}": v for key, v in labels.items()},
    )
    try:
        image = tiltyard_process("evaluate", name, *options, "--out", tmp_path / "image")
        assert image.exit_code == 0, image.stderr
        assert scores(image.document) == scores(folder.document)
        assert docker_client.images.get(name).id == built.id, "an image of the user's must survive its evaluation"
    finally:
        docker_client.images.remove(name)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize("is_broken", [False, True], ids=["scored", "failed"])
def test_the_users_own_image_without_a_name_survives(
    tiltyard_process: Callable,
    docker_client: docker.DockerClient,
    images: None,
    adder: Path,
    tmp_path: Path,
    *,
    is_broken: bool,
) -> None:
    labels = {"name": "adder", "base_model": "squire", "training_data": "none", "licence": "Apache-2.0"}
    dockerfile = (adder / "Dockerfile").read_text()
    (adder / "Dockerfile").write_text(f"{dockerfile}LABEL test={uuid.uuid4().hex}\n")
    if is_broken:
        (adder / "server.py").write_text("raise SystemExit('no weights')")
    built, _ = docker_client.images.build(
        path=str(adder), network_mode="none", rm=True, labels={f"tiltyard.{key}": v for key, v in labels.items()}
    )
    layers = {entry["Id"] for entry in built.history() if entry["Id"].startswith("sha256:") and not entry["Tags"]}
    try:
        assert built.id in layers
        ran = tiltyard_process("evaluate", built.id, "--competition-dir", BUNDLE, "--json", "--out", tmp_path / "out")
        assert ran.exit_code == (3 if is_broken else 0), ran.stderr
        assert layers <= {image["Id"] for image in docker_client.api.images(all=True)}
    finally:
        docker_client.images.remove(built.id)


@pytest.mark.docker
@pytest.mark.slow
def test_the_template_is_scored_at_first_try(
    tiltyard_process: Callable, images: None, submission: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = tiltyard_process("evaluate", submission, "--competition-dir", BUNDLE, "--out", out, "--json")
    assert ran.exit_code == 0, ran.stderr + "".join(path.read_text() for path in out.glob("*.log"))
    again = tiltyard_process("evaluate", submission, "--competition-dir", BUNDLE, "--out", tmp_path / "2", "--json")
    assert scores(again.document) == scores(ran.document)
    assert again.document["image_digest"] == ran.document["image_digest"]
    assert again.document["suites"][0]["repro_hash"] == ran.document["suites"][0]["repro_hash"]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("server.py", "raise SystemExit('cannot find my weights')", "crashed"),
        ("Dockerfile", "FROM tiltyard/python:3.11\nRUN false\n", "build_failed"),
        ("Dockerfile", "FROM debian:12\n", "build_failed"),
    ],
)
def test_a_failure_is_a_verdict(
    tiltyard_process: Callable, images: None, adder: Path, tmp_path: Path, *, file: str, text: str, reason: str
) -> None:
    (adder / file).write_text(text)
    ran = tiltyard_process("evaluate", adder, "--competition-dir", BUNDLE, "--out", tmp_path / "out", "--json")
    assert ran.exit_code == 3, ran.stderr
    assert ran.document["failure"]["reason"] == reason
    assert ran.document["failure"]["message"]
    if reason == "crashed":
        assert "cannot find my weights" in (tmp_path / "out" / "demo-open.server.log").read_text()


@pytest.mark.docker
def test_ctrl_c_removes_the_containers(
    docker_client: docker.DockerClient, images: None, adder: Path, tmp_path: Path
) -> None:
    (adder / "server.py").write_text("import time\ntime.sleep(600)\n")  # never ready
    name = f"sleeper-{tmp_path.name}"  # a label of the image, and so of its containers
    manifest = (adder / "tiltyard.yaml").read_text().replace("name: adder", f"name: {name}")
    (adder / "tiltyard.yaml").write_text(manifest)
    mine = {"label": f"tiltyard.name={name}"}
    command = [sys.executable, "-m", "tiltyard.cli", "evaluate", str(adder), "--competition-dir", str(BUNDLE)]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out"), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip() == "waiting":
                break
        assert docker_client.containers.list(filters=mine) != []
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert '"interrupted"' in stdout
    assert docker_client.containers.list(all=True, filters=mine) == []


@pytest.mark.docker
@pytest.mark.slow
def test_what_a_killed_evaluation_left_goes_with_the_next_and_a_living_ones_stays(
    tiltyard_process: Callable, docker_client: docker.DockerClient, images: None, adder: Path, tmp_path: Path
) -> None:
    def containers() -> set[str]:
        return {one.id for one in docker_client.containers.list(all=True, filters={"label": label})}

    def built() -> set[str]:
        return {image["Id"] for image in docker_client.api.images(all=True, filters={"label": label})}

    name = f"killed-{uuid.uuid4().hex}"  # labels of a participant's Dockerfile are left out, the manifest's name is not
    label = f"tiltyard.name={name}"
    (adder / "server.py").write_text("import time\ntime.sleep(600)\n")  # never ready
    manifest = yaml.safe_load((adder / "tiltyard.yaml").read_text())
    (adder / "tiltyard.yaml").write_text(yaml.safe_dump(manifest | {"name": name}))
    command = [sys.executable, "-m", "tiltyard.cli", "evaluate", str(adder), "--competition-dir", str(BUNDLE), "--out"]
    with ExitStack() as stack:
        killed, living = (
            stack.enter_context(subprocess.Popen([*command, str(tmp_path / name)], stderr=subprocess.PIPE, text=True))
            for name in ("killed", "living")
        )
        for process in (killed, living):
            assert process.stderr is not None
            assert any(line.strip() == "waiting" for line in process.stderr)
        killed.kill()
        killed.wait()
        before, images_before = containers(), built()
        assert len(before) == 2
        ran = tiltyard_process("evaluate", "no-such-image", "--competition-dir", BUNDLE, "--out", tmp_path / "none")
        assert ran.exit_code == 5
        assert containers() == before, "a command that evaluates nothing sweeps nothing"
        (adder / "Dockerfile").write_text("FROM tiltyard/python:3.11\nRUN false\n")
        ran = tiltyard_process("evaluate", adder, "--competition-dir", BUNDLE, "--out", tmp_path / "next")
        assert ran.exit_code == 3, ran.stderr
        assert len(containers()) == 1
        assert len(built()) * 2 == len(images_before)
        living.send_signal(signal.SIGINT)
        living.communicate(timeout=60)
    assert containers() == built() == set()


@pytest.mark.docker
def test_an_image_that_does_not_exist(tiltyard: Callable, docker_client: docker.DockerClient, tmp_path: Path) -> None:
    ran = tiltyard("evaluate", "no-such-image:1", "--competition-dir", BUNDLE, "--out", tmp_path / "out")
    assert ran.exit_code == 5
    assert "docker images" in ran.stderr


@pytest.mark.docker
@pytest.mark.usefixtures("images")
def test_a_named_image_of_an_unknown_registry_says_what_to_do(tiltyard: Callable, adder: Path, tmp_path: Path) -> None:
    (adder / "Dockerfile").unlink()
    with (adder / "tiltyard.yaml").open("a", encoding="utf-8") as file:
        file.write(f"\nimage: registry.example/adder@sha256:{'a' * 64}\n")
    ran = tiltyard("evaluate", adder, "--competition-dir", BUNDLE, "--out", tmp_path / "out")
    assert ran.exit_code == 2
    assert "docker pull registry.example/adder@sha256:aaaa" in ran.stderr.replace("\n", " ")


@pytest.mark.docker
def test_a_missing_evaluator_image_says_how_to_make_it(
    tiltyard: Callable, docker_client: docker.DockerClient, adder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTYARD_EVALUATOR_IMAGE", "tiltyard-test/absent:1")
    ran = tiltyard("evaluate", adder, "--competition-dir", BUNDLE, "--out", tmp_path / "out")
    assert ran.exit_code == 4
    assert "make images" in ran.stderr


def test_no_engine(tiltyard_process: Callable, adder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    ran = tiltyard_process("evaluate", adder, "--competition-dir", BUNDLE, "--out", tmp_path / "out")
    assert ran.exit_code == 4
    assert "Docker engine" in ran.stderr
