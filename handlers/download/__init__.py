"""Everything around one download: slots, watching the client, closing, recording."""
