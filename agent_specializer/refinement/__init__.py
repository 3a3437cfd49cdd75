"""Optional refinement of an adapter for one toolset: minutes of the prompted model's opinion, distilled into its keys."""
