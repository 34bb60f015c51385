"""Where the frames live: the same plan and the same requests, whatever spreads the work."""
