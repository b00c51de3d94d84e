"""What goes wrong with a store."""


class StoreError(Exception):
    """The store cannot be reached, or does not have what it should; the message is for the operator."""
