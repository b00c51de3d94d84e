"""The site's URLs, nested by resource."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from tiltyard.api.api import api

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("api/v1/", api.urls),
    path("accounts/", include("allauth.urls")),
    path("", include("tiltyard.web.urls")),
]
