"""Does a training fit this machine: what it takes by measurement, what is here, and what to change."""
