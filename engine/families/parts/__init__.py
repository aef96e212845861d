"""What families are built from. No module here is a family; those with torch are imported by the worker only."""
