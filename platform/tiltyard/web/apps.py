from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "tiltyard.web"
    label = "web"
