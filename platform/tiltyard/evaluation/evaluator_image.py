"""The evaluator's image of one's own version.

Two checkouts on one engine both name their image `tiltyard/evaluator:local`, and whoever builds last has the name. So
each build also has a tag of its own content, and the label says which evaluator is inside: a run never meets a suite
format or a result format that the worker does not know.
"""

from typing import Final

import docker

from tiltyard_eval.source import SOURCE_LABEL, source_sha256
from tiltyard_sandbox.verdicts import InfraFault

REPOSITORY: Final = "tiltyard/evaluator"
_DIGITS: Final = 12


def own_tag() -> str:
    """What `make images` names the image of these very files beside its ordinary name."""
    return f"{REPOSITORY}:{source_sha256()[:_DIGITS]}"


def own_evaluator_image(client: docker.DockerClient, configured: str) -> str:
    """The id of an image with this program's evaluator: the configured one, or one by its own tag.

    An id, because a name may belong to another image in the next moment. Raises InfraFault, saying what to do, when
    there is none.
    """
    found = ""
    for name in (configured, own_tag()):
        try:
            image = client.images.get(name)
        except docker.errors.ImageNotFound:
            continue
        if image.labels.get(SOURCE_LABEL) == source_sha256():
            return str(image.id)
        found = found or name
    remedy = "Make one from the same files (make images), or name one in TILTYARD_EVALUATOR_IMAGE."
    if found:
        raise InfraFault(f"The image {found} holds another version of the evaluator than this program. {remedy}")
    raise InfraFault(f"The evaluator's image {configured} is not on this machine. {remedy}")
