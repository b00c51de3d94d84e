"""Django's settings. What differs between machines comes from the environment (docs/reference/settings.md)."""

import hashlib
import sys
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from tiltyard.environment import env_bool, env_choice, env_int, env_list, env_networks, env_path, env_str

PACKAGE_DIR = Path(__file__).resolve().parent
REPOSITORY_DIR = PACKAGE_DIR.parents[1]

DATA_DIR = env_path("TILTYARD_DATA_DIR", REPOSITORY_DIR / "var")
DEVELOPMENT_SECRET = "not-secret-development-key"  # noqa: S105  refused below when production is on
PRODUCTION = env_bool("TILTYARD_PRODUCTION", default=False)
DEBUG = env_bool("TILTYARD_DEBUG", default=False)
SECRET_KEY = env_str("TILTYARD_SECRET_KEY", DEVELOPMENT_SECRET)
SECRET_KEY_FALLBACKS = env_list("TILTYARD_SECRET_KEY_FALLBACKS", [])  # former ones, while what they signed still counts
ALLOWED_HOSTS = env_list("TILTYARD_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]", "testserver"])
SITE_URL = env_str("TILTYARD_SITE_URL", "http://127.0.0.1:8000")
CSRF_TRUSTED_ORIGINS = [SITE_URL]

if PRODUCTION:
    if DEBUG:
        raise ImproperlyConfigured("TILTYARD_DEBUG must be off in production.")
    if SECRET_KEY == DEVELOPMENT_SECRET or len(SECRET_KEY) < 40:
        raise ImproperlyConfigured(
            "TILTYARD_SECRET_KEY must be a random text of at least 40 characters in production. "
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )

INSTALLED_APPS = [
    "tiltyard.web",  # first, so that its templates stand before those of the admin and of allauth
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "django_htmx",
    "ninja",
    "tiltyard.accounts",
    "tiltyard.competitions",
    "tiltyard.submissions",
    "tiltyard.uploads",
    "tiltyard.leaderboards",
    "tiltyard.operations",
]

MIDDLEWARE = [
    "tiltyard.web.middleware.trusted_proxies",  # before anything that asks for the scheme or the address
    "django.middleware.security.SecurityMiddleware",
    "tiltyard.web.middleware.content_security_policy",
    "tiltyard.submissions.uploads.upload_size_middleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "tiltyard.operations.limits.rate_limits",
    "tiltyard.operations.audit.record_organisers_acts",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "tiltyard.urls"
ASGI_APPLICATION = "tiltyard.asgi.application"
WSGI_APPLICATION = "tiltyard.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]


def database_from_url(url: str) -> dict[str, object]:
    """Django's database dictionary for `sqlite:///path` or `postgres://user:password@host:port/name`."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": parts.path,
            # Web and worker write at once: readers must not block (WAL), and a transaction that will write takes
            # its lock at the start, because SQLite cannot upgrade a read lock without risking SQLITE_BUSY.
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
            },
        }
    if parts.scheme in {"postgres", "postgresql"}:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.lstrip("/"),
            "USER": parts.username or "",
            "PASSWORD": parts.password or "",
            "HOST": parts.hostname or "",
            "PORT": str(parts.port or ""),
            "CONN_MAX_AGE": 600,  # each belongs to a thread, of which a process has a few: web/handler.py
            "CONN_HEALTH_CHECKS": True,
            # Planning takes PostgreSQL longer than most of our queries do, so each connection keeps the plans of those
            # it has seen a few times.
            "OPTIONS": {
                "server_side_binding": True,
                "prepare_threshold": 3,
                # A database host that answers nothing must not hold up every thread for minutes.
                "connect_timeout": 5,
                "tcp_user_timeout": 20_000,  # milliseconds
            },
        }
    raise ImproperlyConfigured(f"TILTYARD_DATABASE_URL starts with {parts.scheme!r}: use sqlite:/// or postgres://.")


DATABASES = {
    "default": database_from_url(env_str("TILTYARD_DATABASE_URL", f"sqlite:///{DATA_DIR / 'tiltyard.sqlite3'}"))
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
SESSION_COOKIE_AGE = env_int("TILTYARD_SESSION_S", 14 * 24 * 3600)
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = env_str("TILTYARD_EMAIL_VERIFICATION", "none")
ACCOUNT_RATE_LIMITS = {  # by address (ip) and by account (key): guessing one's password, or everyone's, from one place
    "login": "30/m/ip",
    "login_failed": "20/m/ip,100/h/ip,5/5m/key,30/d/key",
    "signup": "10/m/ip,50/d/ip",
    "reset_password": "10/m/ip,3/10m/key",
    "reset_password_from_key": "20/m/ip",
    "change_password": "5/m/user",
    "manage_email": "10/m/user",
    "reauthenticate": "10/m/user",
}
# The same of the REST API and of what changes something on the pages; see operations/limits.py. Empty: no limit.
API_ADDRESS_RATE = env_str("TILTYARD_API_ADDRESS_RATE", "1200/m")
API_CALLER_RATE = env_str("TILTYARD_API_CALLER_RATE", "600/m")
API_GUESSES_RATE = env_str("TILTYARD_API_GUESSES_RATE", "30/m")
CHANGES_RATE = env_str("TILTYARD_CHANGES_RATE", "120/m")
RATELIMIT_FAIL_OPEN = True  # while the cache restarts, nobody is refused
# Proxies that append the caller's address to X-Forwarded-For. Limits on failed logins are kept by that address.
ALLAUTH_TRUSTED_PROXY_COUNT = env_int("TILTYARD_TRUSTED_PROXIES", 1 if PRODUCTION else 0)
# Nobody else's X-Forwarded-… is believed. By default the private networks, in which containers and proxies stand.
TRUSTED_PROXY_NETWORKS = env_networks(
    "TILTYARD_TRUSTED_PROXY_NETWORKS",
    ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
)
LOGIN_REDIRECT_URL = "home"
LOGIN_URL = "account_login"
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
if email_host := env_str("TILTYARD_EMAIL_HOST", ""):
    EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    EMAIL_HOST = email_host

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = env_path("TILTYARD_STATIC_ROOT", DATA_DIR / "static")
# What results look like is the evaluator's, so that its reports and this site look alike.
STATICFILES_DIRS = [str(files("tiltyard_eval") / "report_page" / "static")]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "tiltyard.web.static_files.KnownStaticFiles"
        if PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = not PRODUCTION
WHITENOISE_AUTOREFRESH = not PRODUCTION  # a running development server shows a changed style sheet whole

# Uploads always go to disk in chunks, never through memory, beside the artefacts so that keeping one is a rename.
ARTEFACT_DIR = env_path("TILTYARD_ARTEFACT_DIR", DATA_DIR / "artefacts")
# "disk", which is the folder above, or "s3://BUCKET/PREFIX" in any S3-compatible store.
ARTEFACT_STORE = env_str("TILTYARD_ARTEFACT_STORE", "disk")
ARTEFACT_GRACE_S = env_int("TILTYARD_ARTEFACT_GRACE_S", 24 * 3600)  # for one that no submission refers to
S3_ENDPOINT_URL = env_str("TILTYARD_S3_ENDPOINT_URL", "")
S3_REGION = env_str("TILTYARD_S3_REGION", "us-east-1")
UPLOAD_DIR = env_path("TILTYARD_UPLOAD_DIR", DATA_DIR / "uploads")
FILE_UPLOAD_TEMP_DIR = str(UPLOAD_DIR)
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
UPLOAD_BYTES_MAX = env_int("TILTYARD_UPLOAD_BYTES_MAX", 50 << 30)
FORM_UPLOAD_BYTES_MAX = env_int("TILTYARD_FORM_UPLOAD_BYTES_MAX", 1 << 30)  # in one request, which cannot be resumed
UNFINISHED_UPLOADS_MAX = env_int("TILTYARD_UNFINISHED_UPLOADS_MAX", 3)  # of one participant
UPLOAD_EXPIRY_S = env_int("TILTYARD_UPLOAD_EXPIRY_S", 3 * 24 * 3600)  # after the last byte
REFUSED_UPLOADS_MAX = env_int("TILTYARD_REFUSED_UPLOADS_MAX", 30)  # of one participant in an hour; 0: any number
SUITE_DIR = env_path("TILTYARD_SUITE_DIR", DATA_DIR / "suites")
WORK_DIR = env_path("TILTYARD_WORK_DIR", DATA_DIR / "work")
# From these the hidden suites are drawn; back them up, and let nobody read them before a round is over.
SECRETS_DIR = env_path("TILTYARD_SECRETS_DIR", DATA_DIR / "secrets")
# The key that signs manifests. Back it up too: with another key, old manifests no longer verify.
SIGNING_DIR = env_path("TILTYARD_SIGNING_DIR", DATA_DIR / "signing")
DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
for directory in (ARTEFACT_DIR, UPLOAD_DIR, SUITE_DIR, WORK_DIR, SECRETS_DIR):
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
if not PRODUCTION:
    Path(STATIC_ROOT).mkdir(parents=True, exist_ok=True)  # WhiteNoise warns without; collectstatic makes it otherwise

REDIS_URL = env_str("TILTYARD_REDIS_URL", "redis://127.0.0.1:6379/0")
if PRODUCTION:  # the web server's processes count failed logins together
    CACHES = {
        "default": {
            "BACKEND": "tiltyard.operations.cache.ForgivingRedisCache",
            "LOCATION": REDIS_URL,
            "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1},
        }
    }
EVALUATOR_IMAGE = env_str("TILTYARD_EVALUATOR_IMAGE", "tiltyard/evaluator:local")
# Labels this site's containers, so that a worker never touches those of another site on the same engine.
INSTANCE = env_str(
    "TILTYARD_INSTANCE", hashlib.sha256(f"{DATABASES['default']['NAME']} {DATA_DIR}".encode()).hexdigest()[:12]
)
WORKER_GPU_UUID = env_str("TILTYARD_WORKER_GPU_UUID", "")  # of the one GPU that this worker hands to submissions
WORKER_CPUS = env_str("TILTYARD_WORKER_CPUS", "")  # cores that this worker hands to submissions, such as 0-3
WORKER_RUNTIME = env_str("TILTYARD_WORKER_RUNTIME", "")  # of submissions' containers, such as runsc
WORKER_SELFCHECK = env_bool("TILTYARD_WORKER_SELFCHECK", default=True)  # prove the engine before it gets untrusted work
WORKER_DRAIN_S = env_int("TILTYARD_WORKER_DRAIN_S", 20)  # for the run under way, after SIGTERM
GPU_IDLE_BYTES_MAX = env_int("TILTYARD_GPU_IDLE_BYTES_MAX", 1 << 30)  # taken on a GPU on which nothing runs
RUN_LEASE_S = env_int("TILTYARD_RUN_LEASE_S", 60)
RUN_ATTEMPTS_MAX = env_int("TILTYARD_RUN_ATTEMPTS_MAX", 3)
RUN_DEADLINE_S = env_int("TILTYARD_RUN_DEADLINE_S", 6 * 3600)  # one attempt, all stages: a backstop behind theirs
RUN_STAGE_SLACK_S = env_int("TILTYARD_RUN_STAGE_SLACK_S", 900)  # beside a stage's limits, before it is given up
RUNS_PER_USER_MAX = env_int("TILTYARD_RUNS_PER_USER_MAX", 2)  # of one participant under way at once; 0: any number
QUEUE_DEADLINE_S = env_int("TILTYARD_QUEUE_DEADLINE_S", 7 * 24 * 3600)
QUEUE_REPUBLISH_S = env_int("TILTYARD_QUEUE_REPUBLISH_S", 120)

# Runs go to their track's queue: `celery -A tiltyard worker -Q cpu -c 1` beside each engine or GPU. The periodic
# jobs go to a queue of their own, so that an evaluation cannot delay them: `celery -A tiltyard worker -B -Q maintenance
# -c 2`, once in the whole system, of which the boards' statistics take one process at most.
MAINTENANCE_QUEUE = "maintenance"
CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # A message that is not acknowledged for this long is delivered again, so it must outlast the longest run.
    "visibility_timeout": RUN_DEADLINE_S + 3600,
    "socket_connect_timeout": 2,
    "socket_timeout": 5,
    "max_retries": 1,
}
CELERY_TASK_DEFAULT_QUEUE = MAINTENANCE_QUEUE
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_TIME_LIMIT = RUN_DEADLINE_S + 600
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_DB_REUSE_MAX = sys.maxsize  # celery.py closes connections that are of no use any more
CELERY_BEAT_SCHEDULE = {
    "publish-queued": {"task": "tiltyard.publish_queued", "schedule": 15.0, "options": {"expires": 60}},
    "refresh-boards": {"task": "tiltyard.refresh_boards", "schedule": 10.0, "options": {"expires": 30}},
    "reap-expired": {"task": "tiltyard.reap_expired", "schedule": 15.0, "options": {"expires": 60}},
    "collect-artefacts": {"task": "tiltyard.collect_artefacts", "schedule": 3600.0, "options": {"expires": 600}},
}

X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
if PRODUCTION and SITE_URL.startswith("https://"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]  # supervisors ask beside the proxy, in plain HTTP
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

# On the metrics page of its own (/metrics): who sends this as a bearer token. Without it there is no such page.
METRICS_TOKEN = env_str("TILTYARD_METRICS_TOKEN", "")

LOG_FORMAT = env_choice("TILTYARD_LOG_FORMAT", "plain", ["plain", "json"])
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"run": {"()": "tiltyard.operations.logs.RunFilter"}},
    "formatters": {
        "plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
        "json": {"()": "tiltyard.operations.logs.json_formatter"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["run"]}},
    "root": {"handlers": ["console"], "level": env_str("TILTYARD_LOG_LEVEL", "INFO")},
}
