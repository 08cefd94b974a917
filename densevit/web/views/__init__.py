"""What the page shows of a prediction, task by task: pictures, tables, files."""
