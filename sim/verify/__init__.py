"""What this installation reproduces, line by line: closed forms, published measurements, behaviours of systems.

Each part finds its lines, judges them, and gives them as plain data: `closed_forms`, `published`, `semantics`. How
they look in a terminal is in `show`.
"""

PARTS = ("theory", "published", "semantics")
