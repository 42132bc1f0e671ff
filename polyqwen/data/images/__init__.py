"""Images: files, also inside of tables, to patches; damaged or hostile ones are refused."""
