"""``python -m agent_specializer`` is the command line."""

from agent_specializer.cli import main

main()
