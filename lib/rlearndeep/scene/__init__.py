"""Values every room speaks of: regions, windows, bands and classes."""
