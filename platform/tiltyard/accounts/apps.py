from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "tiltyard.accounts"
    label = "accounts"
