"""Settings → Jinja templates → the JSON that SimpleTuner reads."""
