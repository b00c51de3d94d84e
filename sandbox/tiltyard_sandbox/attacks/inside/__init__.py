"""Programs of an attacker, which run inside a container; standard library only."""
