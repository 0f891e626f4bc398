"""What an artifact is measured beside: its products alone, other precisions and libraries."""
