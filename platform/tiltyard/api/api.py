"""The REST API. Its reference is generated: /api/v1/docs, /api/v1/openapi.json."""

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from ninja import Status
from ninja.errors import AuthenticationError, ValidationError

import tiltyard_eval
from tiltyard.api import competitions, runs, schemas
from tiltyard.api.auth import AUTH, caller
from tiltyard.api.schema_document import DocumentedAPI
from tiltyard.operations.health import broker_answers, database_answers
from tiltyard.submissions.manifests import public_key, retired_keys

api = DocumentedAPI(
    title="Tiltyard",
    version="1",
    urls_namespace="api-1",
    description=(
        "Everything that the command `tiltyard` does. Send a token of your account as `Authorization: Bearer ty_…`. "
        f'An error is `{{"detail": "…"}}`. The server runs the evaluator {tiltyard_eval.__version__}.'
    ),
)
api.add_router("", competitions.router)
api.add_router("", runs.router)


@api.get("/me", auth=AUTH, response={200: schemas.MeOut, 401: schemas.ErrorOut}, tags=["account"])
def me(request: HttpRequest) -> schemas.MeOut:
    """The account that the token belongs to."""
    user = caller(request)
    return schemas.MeOut(username=user.get_username(), email=user.email, is_staff=user.is_staff)


@api.get("/health", response={200: schemas.HealthOut, 503: schemas.HealthOut}, tags=["service"])
def health(request: HttpRequest) -> Status[schemas.HealthOut]:  # noqa: ARG001
    """Whether the database and the broker answer."""
    database, broker = database_answers(), broker_answers()
    is_well = database and broker
    status = schemas.HealthOut(status="ok" if is_well else "degraded", database=database, redis=broker)
    return Status(200 if is_well else 503, status)


@api.get("/signing-key", response=schemas.SigningKeyOut, tags=["service"])
def signing_key(request: HttpRequest) -> schemas.SigningKeyOut:  # noqa: ARG001
    """The public key that signs manifests, and those that signed older ones: 32 bytes in Base64 each."""
    return schemas.SigningKeyOut(algorithm="ed25519", public_key=public_key(), retired=retired_keys())


@api.exception_handler(Http404)
def not_found(request: HttpRequest, _error: Http404) -> HttpResponse:
    """One answer for what does not exist and for what the caller may not see."""
    return api.create_response(request, {"detail": "There is nothing here, or it is not yours."}, status=404)


@api.exception_handler(AuthenticationError)
def not_authenticated(request: HttpRequest, _error: AuthenticationError) -> HttpResponse:
    detail = "Send a valid token as “Authorization: Bearer ty_…”. Make one on your account page; they expire."
    return api.create_response(request, {"detail": detail}, status=401)


@api.exception_handler(ValidationError)
def not_valid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """In one sentence, as every other error, in place of the framework's list."""
    parts = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors]
    return api.create_response(request, {"detail": "; ".join(parts) + "."}, status=422)


@api.exception_handler(MultiPartParserError)
def unreadable_form(request: HttpRequest, _error: MultiPartParserError) -> HttpResponse:
    detail = "The body cannot be read: it is not a complete form of the type multipart/form-data."
    return api.create_response(request, {"detail": detail}, status=400)


@api.exception_handler(SuspiciousOperation)
def refused_form(request: HttpRequest, error: SuspiciousOperation) -> HttpResponse:
    """A body that Django refuses to read on: too large, or of too many fields or files."""
    detail = "The body cannot be read: it is larger, or has more fields or files, than a form of ours may have."
    return api.create_response(request, {"detail": detail}, status=413 if isinstance(error, RequestDataTooBig) else 400)
