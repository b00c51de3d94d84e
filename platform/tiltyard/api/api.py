"""The REST API. Its reference is generated: /api/v1/docs, /api/v1/openapi.json."""

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI, Status
from ninja.errors import AuthenticationError

import tiltyard_eval
from tiltyard.api import competitions, runs, schemas
from tiltyard.api.auth import AUTH, caller

_REDIS_TIMEOUT_S = 2

api = NinjaAPI(
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
    database, broker = _database_answers(), _redis_answers()
    is_well = database and broker
    status = schemas.HealthOut(status="ok" if is_well else "degraded", database=database, redis=broker)
    return Status(200 if is_well else 503, status)


@api.exception_handler(Http404)
def not_found(request: HttpRequest, _error: Http404) -> HttpResponse:
    """One answer for what does not exist and for what the caller may not see."""
    return api.create_response(request, {"detail": "There is nothing here, or it is not yours."}, status=404)


@api.exception_handler(AuthenticationError)
def not_authenticated(request: HttpRequest, _error: AuthenticationError) -> HttpResponse:
    detail = "Send a valid token as “Authorization: Bearer ty_…”. Make one on your account page."
    return api.create_response(request, {"detail": detail}, status=401)


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def _redis_answers() -> bool:
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=_REDIS_TIMEOUT_S, socket_timeout=_REDIS_TIMEOUT_S
        ) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
