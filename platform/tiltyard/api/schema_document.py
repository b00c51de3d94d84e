"""The OpenAPI document, with the answers that operations have in common: each could give them, so none repeats them."""

from typing import Any, Final

from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema

_ERROR: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorOut"}}}
_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})


class DocumentedAPI(NinjaAPI):
    """Ninja's API, whose document names these answers as well."""

    def get_openapi_schema(self, *arguments: Any, **options: Any) -> OpenAPISchema:
        """The document as a nested dictionary."""
        document = super().get_openapi_schema(*arguments, **options)
        for operations in document["paths"].values():
            for method, operation in operations.items():
                if method in _METHODS:
                    for status, description in _common(operation).items():
                        answer = {"description": description, "content": _ERROR}
                        operation["responses"].setdefault(status, answer)
        return document


def _common(operation: dict[str, Any]) -> dict[int, str]:
    """What an operation may answer besides its own, by status."""
    answers = {429: "Too many requests"}
    if operation.get("security"):
        answers |= {401: "No valid token or session", 403: "The token's scope is too narrow, or CSRF is missing"}
    if operation.get("parameters") or operation.get("requestBody"):
        answers |= {422: "A parameter is wrong"}
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", [])):
        answers |= {404: "Nothing is there, or it is not the caller's"}
    if operation.get("requestBody"):
        answers |= {400: "The body cannot be read", 413: "The body is too large"}
    return answers
