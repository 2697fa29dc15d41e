"""`python -m sim` is `msgsim`."""

from sim.cli import main

main()
