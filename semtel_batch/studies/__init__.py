"""Jobs about jobs: what a finished run is worth."""
