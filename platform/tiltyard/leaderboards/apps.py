from django.apps import AppConfig


class LeaderboardsConfig(AppConfig):
    name = "tiltyard.leaderboards"
    label = "leaderboards"

    def ready(self) -> None:
        from tiltyard.leaderboards import changes  # noqa: F401, PLC0415  connects its receiver
