"""All that knows SimpleTuner: releases, option schemas, locks, environments, launching, progress, results."""
