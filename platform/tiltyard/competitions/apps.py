from django.apps import AppConfig


class CompetitionsConfig(AppConfig):
    name = "tiltyard.competitions"
    label = "competitions"
