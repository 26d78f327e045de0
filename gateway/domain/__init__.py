"""The nouns and their rules: model, paths, metadata, schedules, event bodies. No network, no loop."""
