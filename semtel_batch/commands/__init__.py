"""What the commands do, a module each kind: imported only when one runs, with no more than it needs."""
