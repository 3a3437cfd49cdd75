"""Whole conversations through LangChain's agents: does the loop end, were the calls right, how fast is it."""
