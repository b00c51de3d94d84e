from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "tiltyard.operations"
    label = "operations"

    def ready(self) -> None:
        from tiltyard.operations import audit  # noqa: F401, PLC0415  connects its receivers
