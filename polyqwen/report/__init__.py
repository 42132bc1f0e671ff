"""Reports: numbers and images in, pages, tables and figures out; no models."""
