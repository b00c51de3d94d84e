from django.apps import AppConfig


class LeaderboardsConfig(AppConfig):
    name = "tiltyard.leaderboards"
    label = "leaderboards"
