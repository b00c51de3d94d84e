from django.apps import AppConfig


class UploadsConfig(AppConfig):
    name = "tiltyard.uploads"
    label = "uploads"
