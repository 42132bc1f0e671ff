"""The HTML page: markup, styles, charts."""
