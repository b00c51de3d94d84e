"""Pages for those who run the site and for those who wait in its queue."""

from django.urls import path

from tiltyard.operations import views

urlpatterns = [
    path("healthz", views.live, name="live"),
    path("readyz", views.ready, name="ready"),
    path("metrics", views.metrics, name="metrics"),
    path("status/", views.status, name="status"),
]
