from django.apps import AppConfig


class SubmissionsConfig(AppConfig):
    name = "tiltyard.submissions"
    label = "submissions"
