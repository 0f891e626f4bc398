"""What a segment is taught, the loop around it, and the checkpoint that it leaves."""
