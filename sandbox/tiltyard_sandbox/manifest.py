"""`tiltyard.yaml`: what a submission says about itself, checked, and carried as image labels."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import yaml

from tiltyard_sandbox.verdicts import Reason, SubmissionFault

FILE_NAME: Final = "tiltyard.yaml"
MAX_BYTES: Final = 64 * 1024
NESTING_MAX: Final = 3
ADAPTERS: Final = ("openai", "native", "neurips2023")
_REQUIRED: Final = ("name", "base_model", "training_data", "licence")
_MAX_CHARACTERS: Final = {
    "name": 80,
    "base_model": 200,
    "training_data": 4000,
    "licence": 100,
    "adapter": 20,
    "description": 4000,
    "image": 400,
}
# An image carries all but where it came from.
LABELS: Final = {field: f"tiltyard.{field}" for field in _MAX_CHARACTERS if field != "image"}


@dataclass(frozen=True)
class SubmissionManifest:
    """The contents of `tiltyard.yaml`."""

    name: str
    base_model: str
    training_data: str
    licence: str
    adapter: str = "openai"
    description: str = ""
    image: str = ""  # where there is no Dockerfile: "registry/name@sha256:…"

    def labels(self) -> dict[str, str]:
        """The image labels `tiltyard.<field>` that carry this manifest."""
        values = asdict(self)
        return {label: values[field] for field, label in LABELS.items()}

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> Self:
        """The manifest that an image carries in its labels; raises SubmissionFault(image_rejected)."""
        found = {field: labels[label] for field, label in LABELS.items() if label in labels}
        missing = [LABELS[field] for field in _REQUIRED if field not in found]
        if missing:
            raise _fault(
                f"The image has no label {missing[0]}. Add to its Dockerfile: "
                + " ".join(f'LABEL {label}="…"' for label in missing)
            )
        return cls.from_fields(found)

    @classmethod
    def from_yaml(cls, text: bytes) -> Self:
        """The manifest in the bytes of a `tiltyard.yaml`; raises SubmissionFault(image_rejected)."""
        if len(text) > MAX_BYTES:
            raise _fault(f"{FILE_NAME} is larger than {MAX_BYTES // 1024} KiB.")
        try:
            _check_shape(text)
            values = yaml.safe_load(text)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
            line = getattr(getattr(error, "problem_mark", None), "line", None)
            where = "" if line is None else f" at line {line + 1}"
            raise _fault(f"{FILE_NAME} is not valid YAML{where}.") from None
        if not isinstance(values, dict):
            raise _fault(f"{FILE_NAME} must be a mapping with {', '.join(_REQUIRED)}.")
        return cls.from_fields(values)

    @classmethod
    def from_fields(cls, values: Mapping[Any, Any]) -> Self:
        """The manifest with these fields, each checked; raises SubmissionFault(image_rejected)."""
        unknown = [str(key)[:40] for key in values if key not in _MAX_CHARACTERS]
        if unknown:
            raise _fault(f"{FILE_NAME} has an unknown field {unknown[0]!r}. Known: {', '.join(_MAX_CHARACTERS)}.")
        texts = {field: _checked(field, values[field]) for field in _MAX_CHARACTERS if values.get(field) is not None}
        missing = [field for field in _REQUIRED if not texts.get(field)]
        if missing:
            raise _fault(f"{FILE_NAME} lacks {', '.join(missing)}. Required: {', '.join(_REQUIRED)}.")
        manifest = cls(**texts)
        if manifest.adapter not in ADAPTERS:
            raise _fault(
                f"{FILE_NAME}: adapter must be {', '.join(ADAPTERS[:-1])} or {ADAPTERS[-1]}, not {manifest.adapter!r}."
            )
        return manifest


def _check_shape(text: bytes) -> None:
    """Refuse what a flat mapping of texts never needs: a few bytes of aliases can describe gigabytes, and the parser's
    time grows with the square of the nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _fault(f"{FILE_NAME} uses YAML aliases (*name). Write the values out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > NESTING_MAX:
            raise _fault(f"{FILE_NAME} is nested too deeply. It is a plain list of fields with texts.")


def _checked(field: str, value: object) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise _fault(f"{FILE_NAME}: {field} must be a text.")
    text = str(value).strip()
    if len(text) > _MAX_CHARACTERS[field]:
        raise _fault(f"{FILE_NAME}: {field} is longer than {_MAX_CHARACTERS[field]} characters.")
    if any(not character.isprintable() and character not in "\n\t" for character in text):
        raise _fault(f"{FILE_NAME}: {field} has control characters.")
    return text


def _fault(message: str) -> SubmissionFault:
    return SubmissionFault(Reason.IMAGE_REJECTED, message)
