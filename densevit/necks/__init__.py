"""Necks. To add one: write its file, then name it here."""
