"""`sambaflow.models`: models that come with SambaFlow."""
