"""The site's URLs, nested by resource."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from tiltyard.api.api import api

admin.autodiscover()
# Organisers sign in where everybody does: there, and only there, wrong passwords are counted.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("api/v1/", api.urls),
    path("accounts/", include("allauth.urls")),
    path("", include("tiltyard.operations.urls")),
    path("", include("tiltyard.web.urls")),
]
