"""What an attacker tries from inside a container: the programs (`inside`), and what stops each of them (`table`)."""
